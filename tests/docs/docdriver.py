"""Runs the blocks of one page in this process, as a reader types them, and writes what each printed.

    docdriver.py BLOCKS.json RESULTS.json

In: a list of {language, code, where, file, ...} as docpages has them. Out: a list of {status, output}, up to the
first block that failed: "ran", "written", "failed". Standard output and error of a block go to one file, descriptors
included, so that what the C library and subprocesses write is there too.
"""

import doctest
import json
import os
import subprocess
import sys
import tempfile
import traceback


class Page:
    def __init__(self):
        self.namespace = {"__name__": "__main__", "__doc__": None}

    def python(self, block):
        # Line numbers of the page in tracebacks.
        code = "\n" * (block["line"] - 1) + block["code"]
        exec(compile(code, block["page"], "exec"), self.namespace)

    def pycon(self, block):
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        test = doctest.DocTestParser().get_doctest(block["code"], {}, block["where"], block["page"], block["line"] - 1)
        if not test.examples:
            raise ValueError("a pycon block without >>>")
        test.globs = self.namespace         # names stay for the blocks below
        runner = doctest.DocTestRunner(optionflags=flags)
        runner.run(test, clear_globs=False)
        if runner.failures:
            raise AssertionError("the session printed something else")

    def sh(self, block):
        code = subprocess.run(["bash", "-euo", "pipefail", "-c", block["code"]]).returncode
        if code:
            raise RuntimeError("exit code %d" % code)

    def run(self, block):
        if block["file"]:
            with open(block["file"], "w", encoding="utf-8") as file:
                file.write(block["code"])
            if block["language"] == "python":
                compile(block["code"], block["file"], "exec")
            return "written"
        getattr(self, block["language"])(block)
        return "ran"


def captured(page, block):
    """(status, output)"""
    with tempfile.TemporaryFile() as file:
        saved = os.dup(1), os.dup(2)
        sys.stdout.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            try:
                status = page.run(block)
            except BaseException:           # SystemExit of an example is a failure, too
                traceback.print_exc()
                status = "failed"
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            for descriptor, old in zip((1, 2), saved):
                os.dup2(old, descriptor)
                os.close(old)
        file.seek(0)
        return status, file.read().decode("utf-8", "replace")


def main(source, target):
    with open(source, encoding="utf-8") as file:
        blocks = json.load(file)
    page, results = Page(), []
    for block in blocks:
        status, output = captured(page, block)
        results.append({"status": status, "output": output})
        with open(target, "w", encoding="utf-8") as file:       # also when a later block ends the process
            json.dump(results, file)
        if status == "failed":
            return
    if "pyalloc" in sys.modules:
        sys.modules["pyalloc"].heap_check()


if __name__ == "__main__":
    main(*sys.argv[1:])
