"""The command line: puts the commands together, and says what goes wrong."""

from __future__ import annotations

from typing import Any

import click

from softmap import __version__, interrupts
from softmap.commands.explain import explain
from softmap.commands.export import export
from softmap.commands.info import info
from softmap.commands.look import heads, top
from softmap.commands.record import record
from softmap.commands.view import view
from softmap.errors import SoftmapError
from softmap.escaping import escaped


class Commands(click.Group):
    """The commands, whose errors are one message without a traceback, and exit code 1; 130 after Ctrl-C."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run one of them. Without arguments they are the command line's, and the process ends."""
        return super().__call__(*args, **kwargs) if args or kwargs else interrupts.run(self.main)

    def invoke(self, ctx: click.Context) -> Any:
        """Run one of them."""
        try:
            return self._invoke(ctx)
        except KeyboardInterrupt as error:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(interrupts.INTERRUPTED) from error
        except BrokenPipeError as error:
            raise click.exceptions.Exit(interrupts.BROKEN_PIPE) from error

    def _invoke(self, ctx: click.Context) -> Any:
        if ctx.params.get("debug"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except SoftmapError as error:
            raise click.ClickException(str(error)) from error
        except click.ClickException as error:
            error.message = escaped(error.message, "\n")  # type: ignore[misc]
            raise
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if interrupts.came():  # it fell into something that made another error of it
                raise KeyboardInterrupt from error
            got = escaped(f"{type(error).__name__}: {error}", "\n")
            raise click.ClickException(f"softmap failed: {got}. softmap --debug ... shows where.") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="softmap")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Show which token attends to which inside a transformer, step by step."""


for command in (explain, record, view, export, heads, top, info):
    main.add_command(command)
