"""Makes the corpus, asks every judge, and compares.

    run.py --tools FOLDER [--pullgate BINARY] [--slice N] [--jobs N] [--report FILE] [--explain]

A case has one right verdict. pullgate must give it. Where another judge gives another, the
difference must be in tests/differences.md; and each line there must still occur. Exit 1 otherwise.
With `--slice N` only every Nth forgery is made, and lines that do not occur are not looked at.
"""

import argparse
import collections
import fnmatch
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from cases import MOCKED, Maker, cases
from forge.registry import Registry
from forge.trusted import Sigstore
from judges import Judges
from mocked import Mocked

DIFFERENCES = pathlib.Path(__file__).resolve().parent.parent / "differences.md"


class Registries:
    """One with the referrers API and one without; they end with the block."""

    def __init__(self, tools, folder):
        self.tools, self.folder, self.running = tools, folder, []

    def __enter__(self):
        olareg, docker = free_port(), free_port()
        config = self.folder / "registry.yml"
        config.write_text("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
                          f"storage: {{filesystem: {{rootdirectory: {self.folder}/registry}}}}\n"
                          f"http: {{addr: '127.0.0.1:{docker}'}}\n")
        for command in (
                [self.tools / "bin/olareg", "serve", "--addr", "127.0.0.1", "--port", str(olareg),
                 "--store-type", "mem"],
                [self.tools / "bin/docker-registry", "serve", config]):
            self.running.append(subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for port in (olareg, docker):
            wait_for(port)
        return Registry(f"127.0.0.1:{olareg}", True), Registry(f"127.0.0.1:{docker}", False)

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.wait()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Differences:
    """The table of tests/differences.md: which judge says what else about which cases, and why."""

    def __init__(self, text):
        self.rows = []
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if len(cells) == 4 and cells[2] in ("good", "bad"):
                patterns = [p for word in cells[0].split() for p in braces(word.strip("`"))]
                self.rows.append((patterns, cells[1], cells[2], line))
        self.seen = set()

    def known(self, name, judge, answer):
        found = False
        for number, (patterns, of, says, _) in enumerate(self.rows):
            if of == judge and says == answer and any(fnmatch.fnmatchcase(name, p) for p in patterns):
                self.seen.add(number)
                found = True
        return found

    def gone(self):
        return [row[3] for number, row in enumerate(self.rows) if number not in self.seen]


def braces(pattern):
    """`a{b,c}` is `ab` and `ac`."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    return [end for part in found[1].split(",")
            for end in braces(pattern[:found.start()] + part + pattern[found.end():])]


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--tools", required=True, type=pathlib.Path)
    options.add_argument("--pullgate", type=pathlib.Path)
    options.add_argument("--slice", type=int, default=1)
    options.add_argument("--jobs", type=int, default=(os.cpu_count() or 2) + 1)
    options.add_argument("--report", type=pathlib.Path)
    options.add_argument("--keep", type=pathlib.Path, help="a folder that stays")
    options = options.parse_args()
    folder = options.keep or pathlib.Path(tempfile.mkdtemp(prefix="pgc", dir="/tmp"))
    folder.mkdir(exist_ok=True)
    try:
        return judge(options, folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def judge(options, folder):
    began = time.monotonic()
    moment = int(time.time()) - 2 * 86400
    world, foreign = Sigstore(moment), Sigstore(moment)
    maker = Maker(world, foreign, moment)
    mocked = Mocked(options.tools)
    chosen = [c for n, c in enumerate(cases() + mocked.cases()) if c.good or n % options.slice == 0]
    with Registries(options.tools, folder) as (with_referrers, without):
        for number, case in enumerate(chosen):
            registry = without if case.form.startswith("tag") else with_referrers
            # Of one length: no name is a pattern of another.
            repository = f"corpus/c{number:05}"
            if case.trust in MOCKED:
                mocked.prepare(case, registry, repository)
            else:
                maker.make(case, registry, repository)
        mocked.make()
        good = sum(case.good for case in chosen)
        print(f"{len(chosen)} cases, {good} good and {len(chosen) - good} forged, "
              f"made in {time.monotonic() - began:.0f} s", flush=True)
        judges = Judges(options.tools, options.pullgate and options.pullgate.resolve(), folder, world,
                        mocked, options.jobs)
        verdicts, wrong = compare(chosen, judges)
        if options.keep and sys.stdin.isatty():
            input("the registries run until Enter: ")
    if options.report:
        options.report.write_text(json.dumps(verdicts, indent=1))
    if options.slice == 1:
        wrong += [f"no longer so: {line}" for line in verdicts.pop("gone")]
    print(f"{time.monotonic() - began:.0f} s in all")
    for line in wrong[:1000]:
        print(line)
    print(f"{len(wrong)} unexplained differences" if wrong else "no unexplained differences")
    return 1 if wrong else 0


def compare(chosen, judges):
    """Asks everyone; gives all answers by judge, and what nobody has explained."""
    differences = Differences(DIFFERENCES.read_text())
    verdicts, wrong = {}, []
    for name, knows, answer in judges.all():
        began = time.monotonic()
        asked = [case for case in chosen if knows(case)]
        answers = verdicts[name] = answer(asked)
        count = collections.Counter()
        for case in asked:
            right, said = "good" if case.good else "bad", answers[case.name]
            if said == right:
                count["agree"] += 1
            elif not name.startswith("pullgate") and differences.known(case.name, name, said):
                count["differ for a listed reason"] += 1
            else:
                count["differ"] += 1
                wrong.append(f"{name}: {said}, expected {right} ({case.reason or 'good'}): {case.name}")
        parts = ", ".join(f"{n} {what}" for what, n in sorted(count.items()))
        print(f"  {name}: asked {len(asked)}: {parts} ({time.monotonic() - began:.0f} s)", flush=True)
    verdicts["gone"] = differences.gone()
    return verdicts, wrong


if __name__ == "__main__":
    sys.exit(main())
