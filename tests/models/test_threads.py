"""Runs of a model in other threads while a recording is open: recorded, kept apart, or named."""

from __future__ import annotations

import asyncio
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from decoders import assert_same_weights, eager, ids_of

import softmap
from softmap.errors import ModelError

PROMPT = ids_of(9)
ANSWER = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}


def in_a_thread(run, name="a worker"):
    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()


def assert_is_the_generation(rec, model, prompt=PROMPT):
    read = model.generate(prompt, **ANSWER)[:, :-1]
    assert rec.tokens.ids == tuple(read[0].tolist())
    assert_same_weights(rec, eager(model, input_ids=read).attentions)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_generation_in_a_thread_of_the_block_is_recorded(make_decoder, implementation):
    model = make_decoder()
    model.set_attn_implementation(implementation)
    with softmap.recording(model) as rec:
        in_a_thread(lambda: model.generate(PROMPT, **ANSWER))
    model.set_attn_implementation("eager")
    assert_is_the_generation(rec.recording, model)


def test_words_that_a_streamer_hands_over_are_recorded(make_decoder, make_tokenizer):
    from transformers import TextIteratorStreamer

    model, tokenizer = make_decoder(), make_tokenizer("byte level", marks=False)
    streamer = TextIteratorStreamer(tokenizer, timeout=60)
    with softmap.recording(model) as rec:
        thread = threading.Thread(target=model.generate, args=(PROMPT,), kwargs=ANSWER | {"streamer": streamer})
        thread.start()
        pieces = list(streamer)
        thread.join()
    assert len(pieces) > 1
    assert_is_the_generation(rec.recording, model)


def test_streamer_ends_and_the_error_is_told_where_the_thread_does_what_is_refused(make_decoder, make_tokenizer):
    from transformers import TextIteratorStreamer

    model, streamer = make_decoder(), TextIteratorStreamer(make_tokenizer("byte level", marks=False), timeout=60)

    def run():
        model(PROMPT, use_cache=False)
        model.generate(PROMPT, streamer=streamer, **ANSWER)

    with pytest.raises(ModelError, match=r"\(in thread 'a worker'\): expected queries that continue at 9"):  # noqa: PT012, SIM117
        with softmap.recording(model):
            thread = threading.Thread(target=run, name="a worker")
            thread.start()
            assert len(list(streamer)) > 1
            thread.join()


def test_a_plain_run_in_a_thread_is_recorded_without_gradients(make_decoder):
    model, outputs, modes = make_decoder(), [], []
    with softmap.recording(model) as rec:
        in_a_thread(lambda: (outputs.append(model(PROMPT).logits), modes.append(torch.is_grad_enabled())))
    assert_same_weights(rec.recording, eager(model, input_ids=PROMPT).attentions)
    assert not outputs[0].requires_grad
    assert modes == [True]  # the thread's own is as it was


def test_gradients_of_the_thread_are_put_back_after_an_exception_in_the_model(make_decoder):
    model, modes = make_decoder(), []

    def fail():
        with pytest.raises(IndexError):
            model(torch.tensor([[99999]]))
        modes.append(torch.is_grad_enabled())

    with pytest.raises(ModelError), softmap.recording(model):
        in_a_thread(fail)
    assert modes == [True]


@pytest.mark.parametrize("warm", [False, True])
def test_generation_in_a_pools_thread_is_recorded_whenever_that_was_started(make_decoder, warm):
    model = make_decoder()
    with ThreadPoolExecutor(1) as pool:
        if warm:
            pool.submit(int).result()
        with softmap.recording(model) as rec:
            pool.submit(model.generate, PROMPT, **ANSWER).result()
    assert_is_the_generation(rec.recording, model)


def test_generation_away_from_an_event_loop_is_recorded(make_decoder):
    model = make_decoder()

    async def run():
        with softmap.recording(model) as rec:
            await asyncio.to_thread(model.generate, PROMPT, **ANSWER)
        return rec

    assert_is_the_generation(asyncio.run(run()).recording, model)


def test_a_run_that_continues_in_another_thread_of_the_block_is_not_lost_in_silence(make_decoder):
    model = make_decoder()
    with pytest.warns(UserWarning, match="not what thread 'a worker' ran"), softmap.recording(model) as rec:  # noqa: PT031
        cache = model(PROMPT, use_cache=True).past_key_values
        in_a_thread(lambda: model(ids_of(1), past_key_values=cache))
    assert rec.layers[0].shape == (4, 9, 9)


def test_two_threads_are_never_mixed(make_decoder):
    model, both = make_decoder(), threading.Barrier(2)
    prompts, answers = [ids_of(9), ids_of(6)], [None, None]

    def run(i):
        both.wait()
        answers[i] = model.generate(prompts[i], **ANSWER)

    with pytest.raises(ModelError, match=r"one thread, got runs in thread 'worker . '"):  # noqa: PT012, SIM117
        with softmap.recording(model):
            threads = [threading.Thread(target=run, args=(i,), name=f"worker {i} ") for i in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    for prompt, answer in zip(prompts, answers, strict=True):
        assert torch.equal(answer, model.generate(prompt, **ANSWER))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_blocks_own_thread_is_recorded_while_another_of_before_runs_the_model(make_decoder, implementation):
    model, stop, begun = make_decoder(), threading.Event(), threading.Event()
    model.set_attn_implementation(implementation)
    expected, outputs = model.generate(ids_of(6), **ANSWER), []

    def serve():
        while not stop.is_set():
            outputs.append(model.generate(ids_of(6), **ANSWER))
            begun.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        begun.wait()
        recordings = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(5):
                with softmap.recording(model) as rec:
                    model.generate(PROMPT, **ANSWER)
                recordings.append(rec.recording)
    finally:
        stop.set()
        thread.join()
    assert all(torch.equal(output, expected) for output in outputs)
    model.set_attn_implementation("eager")
    for rec in recordings:
        assert_is_the_generation(rec, model)


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_thread_of_before_that_trains_is_left_its_gradients(make_decoder, evaluated):
    model, go, done = make_decoder(), threading.Event(), threading.Event()
    gradients = []

    def train():
        go.wait()
        if evaluated:
            model.generate(PROMPT, **ANSWER)
        model(PROMPT, labels=PROMPT).loss.backward()
        gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad)
        done.set()

    thread = threading.Thread(target=train, name="a trainer")
    thread.start()
    with pytest.raises(ModelError, match="one in thread 'a trainer', which had gradients on"):  # noqa: PT012, SIM117
        with softmap.recording(model):
            go.set()
            done.wait()
    thread.join()
    assert float(gradients[0].abs().max()) > 0


class Halting:
    """A streamer that halts the generation at its third token until it may go on."""

    def __init__(self):
        self.tokens, self.halted, self.go = 0, threading.Event(), threading.Event()

    def put(self, value):
        self.tokens += 1
        if self.tokens == 3:
            self.halted.set()
            self.go.wait(60)

    def end(self):
        pass


def generate_haltingly(model):
    streamer, answers = Halting(), []
    run = threading.Thread(
        target=lambda: answers.append(model.generate(PROMPT, streamer=streamer, **ANSWER)), name="a worker"
    )
    return streamer, run, answers


def test_generation_that_goes_on_after_the_block_is_refused_by_the_name_of_its_thread(make_decoder):
    model = make_decoder()
    streamer, thread, answers = generate_haltingly(model)
    with pytest.raises(ModelError, match="run that ends in the block, got one in thread 'a worker'"):  # noqa: PT012, SIM117
        with softmap.recording(model):
            thread.start()
            streamer.halted.wait()
    streamer.go.set()
    thread.join()
    assert torch.equal(answers[0], model.generate(PROMPT, **ANSWER))


def test_generation_that_began_before_the_block_is_refused_by_the_name_of_its_thread(make_decoder):
    model = make_decoder()
    streamer, thread, answers = generate_haltingly(model)
    thread.start()
    streamer.halted.wait()
    with pytest.raises(ModelError, match="thread 'a worker', which was running the model before the block"):  # noqa: PT012, SIM117
        with softmap.recording(model):
            streamer.go.set()
            thread.join()
    assert torch.equal(answers[0], model.generate(PROMPT, **ANSWER))


def test_the_end_of_a_block_waits_for_the_run_that_is_on(make_decoder):
    model, inside, go = make_decoder(), threading.Event(), threading.Event()

    def halt(*_):
        inside.set()
        go.wait(60)

    handle = model.model.layers[0].register_forward_hook(halt)
    with softmap.recording(model) as rec:
        thread = threading.Thread(target=model, args=(PROMPT,), name="a worker")
        thread.start()
        inside.wait()
        threading.Timer(0.2, go.set).start()
    thread.join()
    handle.remove()
    assert_same_weights(rec.recording, eager(model, input_ids=PROMPT).attentions)


def test_a_thread_that_has_not_run_the_model_yet_is_named(make_decoder):
    go = threading.Event()
    with pytest.raises(ModelError, match=r"Call the model in the block\. Join in it what was started.*'a worker'"):  # noqa: PT012, SIM117
        with softmap.recording(make_decoder()):
            thread = threading.Thread(target=go.wait, name="a worker")
            thread.start()
    go.set()
    thread.join()


@pytest.mark.parametrize("chunk", [None, 4])
def test_record_is_of_its_own_thread_only(make_decoder, chunk):
    model, others = make_decoder(), []

    def run_beside(*_):
        if not others:
            others.append(None)
            in_a_thread(lambda: others.append(model(ids_of(5)).logits))

    handle = model.model.layers[0].register_forward_hook(run_beside)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rec = softmap.record(PROMPT, model, chunk=chunk)
    handle.remove()
    assert_same_weights(rec, eager(model, input_ids=PROMPT).attentions)
    torch.testing.assert_close(others[1], model(ids_of(5)).logits)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("apart", [False, True])
def test_timestamps_of_whisper_are_what_they_are_without_a_recording(make_seq2seq, implementation, apart):
    model, sound = make_seq2seq("whisper"), torch.randn(1, 8, 20)
    model.set_attn_implementation(implementation)
    model.generation_config.alignment_heads = [[0, 0], [1, 2]]
    model.generation_config.no_timestamps_token_id = 50
    model.generation_config.median_filter_width = 3

    def run():
        given = {"input_features": sound, "attention_mask": torch.ones(1, 20, dtype=torch.long)}
        outputs.append(model.generate(**given, return_token_timestamps=True, **ANSWER))

    outputs = []
    with softmap.recording(model) as rec:
        in_a_thread(run) if apart else run()
    run()
    assert torch.equal(outputs[0]["sequences"], outputs[1]["sequences"])
    assert torch.equal(outputs[0]["token_timestamps"], outputs[1]["token_timestamps"])
    expected = eager(model, input_features=sound, decoder_input_ids=torch.tensor([rec.target.ids]))
    cross = [layer for layer in rec.layers if layer.kind == "cross"]
    for layer, weights in zip(cross, expected.cross_attentions, strict=True):
        torch.testing.assert_close(layer.matrix.dense(), weights[0], atol=2e-6, rtol=0)
