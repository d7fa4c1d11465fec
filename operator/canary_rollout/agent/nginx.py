"""The nginx beside us as a program: what it can do, whether it takes a configuration, and its signals."""

import asyncio
import contextlib
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import Final

from canary_rollout.agent.errors import LoadError, NotRunningError
from canary_rollout.agent.files import Abilities

TEST_TIMEOUT: Final = 20.0
"""Seconds for one ``nginx -t``; it takes some 20 ms."""
_KEEPALIVE_MIN_TIMEOUT_SINCE: Final = (1, 27, 4)
_PROBE: Final = """{module}
error_log stderr emerg;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    js_import probe from probe.js;
    js_preload_object start from state.json;
    js_shared_dict_zone zone=canary:64k type=string;
    js_var $probe_variable "";
    js_set $probe probe.probe;
    split_clients $probe $canary_probe {{ 1% a; * b; }}
}}
"""
_JS_MODULE: Final = "ngx_http_js_module.so"


class Nginx:
    """The binary, and the process that runs it in a work directory."""

    def __init__(self, binary: str, root: Path) -> None:
        self.binary = binary
        self.root = root

    async def _run(self, *arguments: str) -> tuple[int, str]:
        """Run the binary to its end; exit code and what it said on stderr."""
        process = await asyncio.create_subprocess_exec(
            self.binary, *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(TEST_TIMEOUT):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return process.returncode or 0, said.decode(errors="replace")

    async def abilities(self) -> Abilities:
        """Ask the binary for its version, and try njs with everything our script needs.

        Raises:
            LoadError: it does not run.
        """
        try:
            _, said = await self._run("-V")
        except (OSError, TimeoutError) as error:
            raise LoadError(f"{self.binary} does not run: {error}") from error
        found = re.search(r"version: \S*?/(\d+)\.(\d+)\.(\d+)", said)
        version = tuple(int(part) for part in found.groups()) if found else (0, 0, 0)
        modules = re.search(r"--modules-path=(/[\w./-]+)", said)
        candidates = ["", *([f"{modules.group(1).rstrip('/')}/{_JS_MODULE}"] if modules else [])]
        with tempfile.TemporaryDirectory(prefix="probe-", dir=self.root) as directory:
            module = await self._js_module(Path(directory), candidates)
        return Abilities(
            version=".".join(str(part) for part in version),
            njs=module is not None,
            js_module=module or "",
            keepalive_min_timeout=version >= _KEEPALIVE_MIN_TIMEOUT_SINCE,
        )

    async def _js_module(self, directory: Path, candidates: list[str]) -> str | None:
        """The module to load for njs, ``""`` when it is built in, ``None`` when there is no (or too old an) njs."""
        (directory / "probe.js").write_text(
            "function probe(r) { return ''; }\nexport default {probe};\n", encoding="ascii"
        )
        (directory / "state.json").write_text("{}", encoding="ascii")
        for module in candidates:
            load = f"load_module {module};" if module else ""
            (directory / "nginx.conf").write_text(_PROBE.format(module=load), encoding="ascii")
            code, _ = await self._run("-t", "-p", f"{directory}/", "-c", "nginx.conf")
            if code == 0:
                return module
        return None

    async def test(self, target: str) -> None:
        """``nginx -t`` on the configuration in ``target`` (relative to the root).

        Raises:
            LoadError: with nginx's own words.
        """
        try:
            code, said = await self._run("-t", "-p", f"{self.root}/", "-c", f"{target}/nginx.conf")
        except TimeoutError as error:
            raise LoadError(f"nginx -t did not end within {TEST_TIMEOUT:.0f} s") from error
        if code != 0:
            lines = [line for line in said.splitlines() if "[emerg]" in line] or said.splitlines()
            words = re.sub(r"^\S+ \S+ \[emerg\] \S+ ", "", lines[0]) if lines else f"exit code {code}"
            raise LoadError(f"nginx -t refused it: {words.replace(f'{self.root}/', '')}")

    def master(self) -> int | None:
        """Process id of the running master; ``None`` when there is none (a stale pid file does not count)."""
        try:
            pid = int((self.root / "run/nginx.pid").read_text(encoding="ascii"))
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if b"nginx" in title and b"master process" in title else None

    def draining(self) -> bool:
        """Whether nginx was told to stop and is seeing its last requests out."""
        return (self.root / "run/stopping").exists() and self.master() is not None

    def stop(self) -> None:
        """Tell nginx's parent to stop it gracefully; nothing when there is none."""
        try:
            os.kill(int((self.root / "run/supervisor.pid").read_text(encoding="ascii")), signal.SIGTERM)
        except (OSError, ValueError):
            return

    def _signal(self, number: signal.Signals) -> None:
        pid = self.master()
        if pid is None:
            raise NotRunningError("nginx is not running")
        try:
            os.kill(pid, number)
        except ProcessLookupError as error:
            raise NotRunningError("nginx has just ended") from error

    def reload(self) -> None:
        """Tell the master to take over the current configuration; that it did must be asked of nginx itself.

        Raises:
            NotRunningError: there is no master.
        """
        self._signal(signal.SIGHUP)

    def reopen_logs(self) -> None:
        """Tell nginx to open its log anew after the old one was renamed.

        Raises:
            NotRunningError: there is no master.
        """
        self._signal(signal.SIGUSR1)
