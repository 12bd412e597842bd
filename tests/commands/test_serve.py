"""``whyops-trace serve`` and ``whyops-trace view``: what they print, where they listen, how they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from browser import record, tool_call
from click.testing import CliRunner, Result
from programs import Program, run_code, start, start_code

from whyops_trace.cli import main
from whyops_trace.commands.serving import forget, note, running

KEY = "whyops_abcdefgh12345678"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with two traces."""
    home = tmp_path / "home"
    record(home, tool_call("checkout-8841"), tool_call("an/odd?id#é", at=1))
    return home


@pytest.fixture
def cli() -> Callable[..., Result]:
    """Runs a command in this process."""
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def command(home: Path, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts a command in a process of its own, whose browser writes down what it opens."""
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/opened.new && mv {tmp_path}/opened.new {tmp_path}/opened\n'
    )
    browser.chmod(0o700)
    started: list[Program] = []

    def starter(*arguments: str, **environment: str) -> Program:
        program = start("-m", "whyops_trace", *arguments, home=home, BROWSER=f"{browser} %s", **environment)
        started.append(program)
        return program

    yield starter
    for program in started:
        if program.poll() is None:
            program.kill()
        program.communicate()


def line(program: Program) -> str:
    """Return the next line that a program prints."""
    assert program.stdout is not None
    return program.stdout.readline().strip()


def stopped(program: Program, by: int = signal.SIGINT) -> tuple[int, str]:
    """Stop a program as a user does; return its exit code and what it still had to say of problems."""
    program.send_signal(by)
    _, err = program.communicate(timeout=30)
    return program.returncode, err


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_where_it_is_and_ends_quietly(
    command: Callable[..., Program], home: Path, by: int
) -> None:
    """On Ctrl-C, or when it is told to; its note in the home goes with it."""
    program = command("serve", "--port", "0")
    said = [line(program) for _ in range(3)]
    url = said[0].rpartition(" ")[2]
    answer = httpx.get(url)
    note = json.loads((home / "serve.json").read_text())

    assert said == [
        f"The traces of {home} are at {url}",
        f'WhyOps SDKs report to it with analyse_base_url="{url}/api"',
        "Ctrl-C stops it.",
    ]
    assert "checkout-8841" in answer.text
    assert "server" not in answer.headers
    assert note == {"pid": program.pid, "url": url, "token": note["token"]}
    assert stopped(program, by) == (0, "")
    assert not (home / "serve.json").exists()


def test_serve_as_json(command: Callable[..., Program], home: Path) -> None:
    """For a program that starts it."""
    program = command("serve", "--port", "0", "--json")
    said = json.loads(line(program))

    assert said == {
        "url": said["url"],
        "collector": f"{said['url']}/api",
        "pid": program.pid,
        "home": str(home),
    }
    token = json.loads((home / "serve.json").read_text())["token"]
    health = [
        httpx.get(f"{said['collector']}/health", headers=headers).json()
        for headers in ({}, {"x-whyops-token": "guessed"}, {"x-whyops-token": token})
    ]

    assert health[:2] == [{"status": "healthy"}] * 2
    assert health[2]["home"] == str(home)
    assert stat.S_IMODE((home / "serve.json").stat().st_mode) == 0o600


def test_serve_opens_the_browser(command: Callable[..., Program], tmp_path: Path) -> None:
    """When it answers."""
    url = line(command("serve", "--port", "0", "--open")).rpartition(" ")[2]

    assert opened(tmp_path) == url


def opened(folder: Path) -> str:
    """Wait for the browser; return what it was opened at."""
    import time

    deadline = time.monotonic() + 30
    while not (folder / "opened").exists():
        assert time.monotonic() < deadline
        os.sched_yield()
    return (folder / "opened").read_text().strip()


@pytest.mark.parametrize("how", ["", "--json"])
def test_serve_goes_on_where_nobody_listens(
    command: Callable[..., Program], home: Path, tmp_path: Path, how: str
) -> None:
    """Such as behind a pipe whose other end is gone, or from a desktop."""
    program = start_code(
        f"""
        import os
        from whyops_trace.cli import main

        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        main(["serve", "--port", "0", "--open", *{how!r}.split()])
        """,
        home,
        BROWSER=f"{tmp_path}/browser %s",
    )

    assert httpx.get(opened(tmp_path)).status_code == 200
    assert stopped(program) == (0, "")


def test_a_busy_port_is_said(cli: Callable[..., Result], home: Path) -> None:
    """With what to do, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        result = cli("serve", "--port", port, "--home", home)

    assert result.output == (
        f"Error: Port {port} of 127.0.0.1 is in use: choose another with --port, or --port 0 for any that is free.\n"
    )
    assert result.exit_code == 1


def test_an_address_that_is_not_of_this_machine_is_said(cli: Callable[..., Result], home: Path) -> None:
    """In words of the system."""
    result = cli("serve", "--host", "192.0.2.1", "--port", 0, "--key", KEY, "--home", home)

    assert result.exit_code == 1
    assert result.output.startswith("Error: Cannot listen on port 0 of 192.0.2.1: ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_others_are_let_in_with_a_key_only(cli: Callable[..., Result], home: Path, host: str) -> None:
    """It says how to make one."""
    result = cli("serve", "--host", host, "--home", home)

    assert result.exit_code == 2
    assert "takes a key: set WHYOPS_SERVE_KEY to the output of: python -c" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("key", "why"), [("short", "less than 16"), ("k" * 16 + " ", "header"), ("é" * 16, "header")]
)
def test_a_key_must_be_one(cli: Callable[..., Result], home: Path, key: str, why: str) -> None:
    """Nobody guesses it, and it can be sent."""
    result = cli("serve", "--key", key, "--home", home)

    assert result.exit_code == 2
    assert why in result.output


def test_serve_with_a_key(command: Callable[..., Program]) -> None:
    """From the environment; on all addresses it answers to the names that it was told."""
    program = command(
        "serve", "--host", "0.0.0.0", "--port", "0", "--allow-host", "box.example", WHYOPS_SERVE_KEY=KEY
    )
    url = line(program).rpartition(" ")[2]
    codes = [
        httpx.get(url, headers={"host": host, **shown}).status_code
        for host in ("127.0.0.1", "box.example", "evil.example")
        for shown in ({}, {"authorization": f"Bearer {KEY}"})
    ]

    assert codes == [401, 200, 401, 200, 421, 421]
    assert stopped(program) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="no such bound")
def test_a_flood_of_connections_leaves_files_to_answer_with(home: Path) -> None:
    """Those that are too many are closed, without a word for each."""
    served = """
        import resource, sys
        from whyops_trace.cli import main

        resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
        main(["serve", "--port", "0"])
    """
    program = start_code(served, home)
    url = line(program).rpartition(" ")[2]
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with httpx.Client(base_url=url) as client, contextlib.ExitStack() as flood:
        before = client.get("/")
        for _ in range(900):
            with contextlib.suppress(OSError):
                flood.enter_context(socket.create_connection(address, 30))
        during = client.get("/?q=charge")

    assert [answer.status_code for answer in (before, during)] == [200, 200]
    assert stopped(program) == (0, "")


def test_an_sdk_reports_to_it(command: Callable[..., Program], home: Path, tmp_path: Path) -> None:
    """With the address that it prints."""
    url = line(command("serve", "--port", "0", WHYOPS_SERVE_KEY=KEY)).rpartition(" ")[2]
    code = """
        from whyops_trace import WhyOps
        sdk = WhyOps(agent_name="shop")
        sdk.trace("remote").user_message_sync(messages=[{"role": "user", "content": "hello"}])
        print(sdk.flush_sync(30)["whyops"].delivered)
    """
    there = {"WHYOPS_ANALYSE_URL": f"{url}/api", "WHYOPS_API_KEY": KEY}
    done = run_code(code, tmp_path / "elsewhere", **there)

    assert (done.stdout.strip(), done.stderr) == ("1", "")
    assert httpx.get(f"{url}/t/remote", headers={"x-api-key": KEY}).status_code == 200


def test_view_uses_the_server_that_runs(command: Callable[..., Program], home: Path, tmp_path: Path) -> None:
    """It opens the browser and is done."""
    url = line(command("serve", "--port", "0")).rpartition(" ")[2]
    program = command("view", "latest")
    out, err = program.communicate(timeout=30)

    assert (out.strip(), err, program.returncode) == (f"{url}/t/an%2Fodd%3Fid%23%C3%A9", "", 0)
    assert opened(tmp_path) == out.strip()
    assert httpx.get(out.strip()).status_code == 200


def test_view_is_a_server_where_none_runs(command: Callable[..., Program], home: Path) -> None:
    """Until Ctrl-C; what a server left that was killed leads nobody astray."""
    killed = command("serve", "--port", "0")
    line(killed)
    killed.kill()
    killed.wait()
    with socket.create_server(("127.0.0.1", 0)):
        program = command("view", "--no-browser", "check")
        url = line(program)

        assert httpx.get(url).status_code == 200
    assert url.endswith("/t/checkout-8841")
    assert stopped(program) == (0, "Ctrl-C stops the viewer.\n")


def test_view_does_not_trust_the_server_of_another_home(
    command: Callable[..., Program], home: Path, tmp_path: Path
) -> None:
    """A note may be old, and its port another's now."""
    other = line(command("serve", "--port", "0", "--home", str(tmp_path / "other"))).rpartition(" ")[2]
    (home / "serve.json").write_text(json.dumps({"pid": 1, "url": other}))
    url = json.loads(line(command("view", "--json")))["url"]

    assert not url.startswith(other)
    assert httpx.get(url).status_code == 200


@pytest.mark.parametrize(
    "note", ["", "[]", '{"url": 5}', '{"url": "ftp://x"}', '{"url": "http://["}', "\x00"]
)
def test_a_note_may_hold_anything(command: Callable[..., Program], home: Path, note: str) -> None:
    """Then there is no server."""
    (home / "serve.json").write_text(note)

    assert line(command("view", "--no-browser")).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("rest", ["/\x1b]0;x\x07", "#@other.example", "/other/..", " ", "\u202e", "?"])
def test_a_note_is_an_address_and_nothing_else(
    command: Callable[..., Program], home: Path, rest: str
) -> None:
    """What somebody else wrote there is neither printed nor opened, though a server of this home is there."""
    url = line(command("serve", "--port", "0")).rpartition(" ")[2]
    told = json.loads((home / "serve.json").read_text())
    (home / "serve.json").write_text(json.dumps({**told, "url": url + rest}))

    assert not json.loads(line(command("view", "--json")))["url"].startswith(url)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_a_note_is_a_file(command: Callable[..., Program], home: Path) -> None:
    """A pipe would be waited for."""
    os.mkfifo(home / "serve.json")

    assert json.loads(line(command("view", "--json")))["url"].startswith("http://")


def test_a_note_follows_no_link(home: Path, tmp_path: Path) -> None:
    """Whoever else writes to the home cannot let it overwrite what is not there."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (home / f"serve.json.{os.getpid()}").symlink_to(mine)
    note(home, "http://127.0.0.1:8765", "token")

    assert mine.read_text() == "mine"
    assert json.loads((home / "serve.json").read_text())["url"] == "http://127.0.0.1:8765"


def test_where_no_note_can_be_nothing_is_left(home: Path) -> None:
    """Nobody finds the server by the home then."""
    (home / "serve.json").mkdir()
    note(home, "http://127.0.0.1:8765", "token")
    forget(home)

    assert [path.name for path in home.glob("serve*")] == ["serve.json"]
    assert running(home) is None


def test_view_of_no_trace(cli: Callable[..., Result], home: Path) -> None:
    """It says what there is."""
    result = cli("view", "chekout-8841", "--home", home)

    assert result.output == "Error: There is no trace 'chekout-8841': did you mean 'checkout-8841'?\n"
    assert result.exit_code == 1


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "jinja2"])
def test_it_says_how_to_install_what_is_missing(home: Path, package: str) -> None:
    """In one line."""
    code = f"""
        import sys
        sys.modules[{package!r}] = None
        sys.argv = ["whyops-trace", "serve", "--port", "0"]
        from whyops_trace.__main__ import main
        main()
    """
    done = run_code(code, home)

    assert (done.stderr, done.returncode) == (
        "Error: The viewer is not installed: install whyops-trace again with the extra ui; "
        "in a checkout: pip install '.[ui]'\n",
        1,
    )


def test_other_commands_do_not_load_the_server(home: Path) -> None:
    """What they have no use for costs them no time."""
    code = """
        import sys
        import whyops_trace.cli
        print([name for name in ("uvicorn", "starlette", "jinja2", "asyncio") if name in sys.modules])
    """

    assert run_code(code, home).stdout.strip() in ("[]", "['asyncio']")
