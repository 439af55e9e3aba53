"""Ctrl-C and other signals: each command ends with 128 and the signal's number, within two seconds, and leaves nothing half."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from recorded.builders import make_recording

import softmap
from softmap.errors import RecordingError
from softmap.interrupts import PATIENCE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")
WITHIN = float(os.environ.get("SOFTMAP_TEST_SECONDS", "2"))
"""Seconds in which a command has to end. More than two where other programs keep the processors busy."""
HELD_UP = 3
"""By how much more a loaded machine may be slower: the time is measured while several commands and all else run."""
INTERRUPTS = int(os.environ.get("SOFTMAP_TEST_INTERRUPTS", "200"))
"""How many commands are interrupted at random moments."""
ENDING = 0.2
"""Seconds that Python takes to leave a command which has done all it had to, as it may when the signal comes."""
BEGIN = """
import sys
from softmap.__main__ import _command, run
def command():
    print("begun", file=sys.stderr, flush=True)
    _command()
run(command)
"""
HERE = Path(__file__).parent
COMMANDS = {
    "explain": ["explain", "I love learning", "--html", "{out}/story.html", "--svg", "{out}/story.svg"],
    "record": ["record", "I love learning, and learning loves me. " * 40, "-o", "{out}/new.softmap"],
    "heads": ["heads", "{recording}"],
    "top": ["top", "{recording}", "--row", ":3"],
    "info": ["info"],
    "verify": ["info", "{recording}", "--verify"],
    "view": ["view", "{recording}", "--no-browser"],
    "view a text": ["view", "I love learning", "--no-browser"],
    "export": ["export", "{recording}", "--html", "{out}/map.html", "--png", "{out}/map.png", "--svg", "{out}/map.svg"],
    "help": ["--help"],
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "run.softmap"
    make_recording(queries=500, d_k=64).save(path)
    return path


def start(arguments, **options):
    """A command whose own code is about to begin: before, a signal finds Python, not softmap."""
    streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE) | {"stdin": subprocess.DEVNULL}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, "-c", BEGIN, *arguments], **streams | options, env=environment)
    assert process.stderr.readline() == b"begun\n"
    return process


def end(process, number=signal.SIGINT):
    """Send a signal: the exit code, what was said, and after how many seconds it had ended."""
    sent = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said.decode(), time.monotonic() - sent


def run(code, *arguments):
    """Python code as the command that is run."""
    begin = f"import sys, time, signal, os, atexit\nfrom softmap import interrupts, writing\n{code}\ninterrupts.run(command)"
    return subprocess.Popen(
        [sys.executable, "-c", begin, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("after", [0, 0.1, 0.7])
@pytest.mark.parametrize("name", ["info", "view"])
def test_ctrl_c_ends_a_command_with_130(recording, name, after):
    process = start([each.format(recording=recording) for each in COMMANDS[name]])
    with suppress(subprocess.TimeoutExpired):
        process.wait(after)
    code, said, seconds = end(process)
    assert code == 130
    assert said.splitlines()[-1] in ("interrupted", "ended")
    assert seconds < WITHIN * HELD_UP


@pytest.mark.slow
def test_many_interrupts_at_random_moments_end_all_commands(recording, tmp_path):
    chance = random.Random(0)

    def took(name):
        """How long a command takes that nobody interrupts."""
        folder = tmp_path / f"whole {name}"
        folder.mkdir()
        if name.startswith("view"):
            return name, 8.0
        began = time.monotonic()
        start([each.format(recording=recording, out=folder) for each in COMMANDS[name]]).communicate(timeout=120)
        return name, time.monotonic() - began

    def interrupted(i):
        name = [*COMMANDS][i % len(COMMANDS)]
        folder = tmp_path / str(i)
        folder.mkdir()
        process = start([each.format(recording=recording, out=folder) for each in COMMANDS[name]])
        moment = moments[i] * whole[name]
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        is_over = process.poll() is not None
        code, said, seconds = end(process)
        is_over |= code == 0 and seconds < ENDING
        return i, name, moment, is_over, code, said, seconds

    with ThreadPoolExecutor(2) as several:
        whole = dict(several.map(took, COMMANDS))
        moments = [chance.random() for _ in range(INTERRUPTS)]
        found = list(several.map(interrupted, range(INTERRUPTS)))
    told = {i: f"{name} after {moment:.2f} s: {code} after {seconds:.2f} s, said {said[-900:]}"
            for i, name, moment, _, code, said, seconds in found}  # fmt: skip
    assert not [told[i] for i, *_, is_over, code, _, _ in found if code != (0 if is_over else 130)]
    assert not [told[i] for i, *_, seconds in found if seconds > WITHIN * HELD_UP]
    for i in range(INTERRUPTS):
        _assert_nothing_is_half(tmp_path / str(i), told[i])
    assert sum(not each[3] for each in found) > 0.75 * INTERRUPTS
    assert sorted(each[-1] for each in found)[INTERRUPTS * 9 // 10] < WITHIN


def _assert_nothing_is_half(folder, told):
    for file in folder.iterdir():
        assert not file.name.startswith("."), told
        if file.suffix == ".html":
            assert file.read_text(encoding="utf-8").rstrip().endswith("</html>"), told
        if file.suffix == ".svg":
            assert file.read_text(encoding="utf-8").rstrip().endswith("</svg>"), told
        if file.suffix == ".png":
            assert file.read_bytes()[-8:-4] == b"IEND", told
        if file.suffix == ".softmap":
            assert not [each for each in file.iterdir() if each.name.startswith(".")], told
            with suppress(RecordingError):  # what was cut off opens with partial=True
                softmap.load(file, verify=True)
                continue
            softmap.load(file, partial=True, verify=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_end_a_view_with_their_own_code(recording, number, code):
    process = start(["view", str(recording), "--no-browser"])
    process.stdout.readline()
    assert end(process, number)[0] == code


SWALLOWED = """
def command():
    print("ready", flush=True)
    while True:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
"""
COMPUTED = """
import hashlib
def command():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10**9)  # C that looks for no signal, and takes minutes
"""
IGNORED_IN_DEL = """
class Deleted:
    def __del__(self):
        time.sleep(2)
def command():
    while True:
        print("ready", flush=True)
        del [Deleted()][0]
"""
AT_THE_END = """
def command():
    atexit.register(lambda: (print("ready", flush=True), time.sleep(60)))
"""
WHILE_CLOSING = """
def command():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        while True:
            time.sleep(1)
"""


@pytest.mark.parametrize("code", [SWALLOWED, COMPUTED, IGNORED_IN_DEL, AT_THE_END, WHILE_CLOSING])
def test_interrupt_that_is_lost_or_comes_late_ends_the_process(code):
    with run(code) as process:
        assert process.stdout.readline() == b"ready\n"
        code, said, seconds = end(process)
    assert code == 130
    assert said.endswith("interrupted\n")
    assert seconds < WITHIN * HELD_UP


def test_second_interrupt_ends_it_at_once():
    with run(WHILE_CLOSING) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        code, _, seconds = end(process)
    assert code == 130
    assert seconds < PATIENCE / 2


def test_interrupt_that_is_swallowed_by_a_command_that_ends_by_itself_is_still_its_code():
    code = SWALLOWED.replace("pass", "return")
    with run(code) as process:
        process.stdout.readline()
        assert end(process)[0] == 130


@pytest.mark.parametrize("ending", ["time.sleep(60)", "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)"])
def test_file_that_is_being_written_is_removed_and_the_one_there_stays(tmp_path, ending):
    (tmp_path / "file.txt").write_text("before", encoding="utf-8")
    code = f"""
import hashlib
def command():
    with writing.written(sys.argv[1]) as draft:
        draft.write_text("half")
        print("ready", flush=True)
        {ending}
"""
    with run(code, tmp_path / "file.txt") as process:
        assert process.stdout.readline() == b"ready\n"
        assert len(list(tmp_path.iterdir())) == 2
        assert end(process)[0] == 130
    assert [each.read_text(encoding="utf-8") for each in tmp_path.iterdir()] == ["before"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["time.sleep(60)", "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)"])
def test_recording_without_a_layer_is_removed_and_one_with_layers_can_be_opened(tmp_path, ending):
    code = f"""
import hashlib
sys.path.insert(0, {str(HERE)!r})
from recorded.builders import ORIGIN, make_layer
from softmap.models.record import _writing
def command():
    with _writing(sys.argv[1], ORIGIN) as writer:
        for i in range(int(sys.argv[2])):
            writer.add([make_layer(i, number=i)])
        print("ready", flush=True)
        {ending}
"""
    for layers in (0, 1):
        path = tmp_path / f"{layers}.softmap"
        with run(code, path, layers) as process:
            assert process.stdout.readline() == b"ready\n"
            assert end(process)[0] == 130
        assert path.exists() == bool(layers)
    assert len(softmap.load(path, partial=True).sequences) <= 1


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('a message')", 1, "a message\n"),
        ("raise ValueError('x')", 1, "ValueError: x\n"),
        ("sys.stdout.close()", 0, ""),
    ],
)
def test_exit_code_is_the_commands_and_what_waits_for_the_end_is_called(ending, code, said):
    with run(f"def command():\n    atexit.register(lambda: os.write(1, b'at exit'))\n    {ending}") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, b"at exit")
    assert err.decode().endswith(said)
    assert bool(err) == bool(said)


def test_who_stops_reading_what_is_printed_ends_the_command_quietly():
    code = "def command():\n    from softmap.cli import main\n    sys.stdin.readline()\n    main.main(['explain', '--example'])"
    with run(code) as process:
        process.stdout.close()
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_job_in_the_background_that_ignores_ctrl_c_goes_on(recording):
    process = start(["info", str(recording)], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    code, said, _ = end(process)
    assert (code, said) == (0, "")


def test_library_leaves_signals_to_its_program():
    code = (
        "import signal, threading\n"
        "import softmap, softmap.cli, softmap.interrupts, softmap.viewer.launch\n"
        "from click.testing import CliRunner\n"
        "assert CliRunner().invoke(softmap.cli.main, ['explain', '--example']).exit_code == 0\n"
        "try: softmap.cli.main(['explain', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "assert signal.set_wakeup_fd(-1) == -1\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
