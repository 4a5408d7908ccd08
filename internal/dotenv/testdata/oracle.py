"""Answers what python-dotenv reads. Arguments: directory with the library, then
directories with the library's own tests, whose texts are all taken as inputs.
Standard input: a JSON list of base64 texts. Standard output: one JSON object."""

import ast
import base64
import importlib.metadata
import io
import json
import logging
import os
import sys

root, *suites = sys.argv[1:]
sys.path.insert(0, root)
from dotenv.main import DotEnv  # noqa: E402

logging.disable(logging.CRITICAL)
os.environ.clear()


def texts():
    """Every literal of the suites: what is parsed is among them."""
    for directory in suites:
        for name in sorted(os.listdir(directory)):
            if not name.endswith(".py"):
                continue
            with open(os.path.join(directory, name), encoding="utf-8") as f:
                for node in ast.walk(ast.parse(f.read())):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        yield base64.b64encode(node.value.encode("utf-8")).decode()


def answer(text):
    def file():  # as open() gives it to load_dotenv
        return io.TextIOWrapper(io.BytesIO(base64.b64decode(text)), encoding="utf-8")

    try:
        entries = [[k, v] for k, v in DotEnv(None, stream=file(), interpolate=False).parse()]
        values = DotEnv(None, stream=file(), interpolate=True, override=False).dict()
    except UnicodeDecodeError:
        return {"refused": True}
    return {"entries": entries, "values": {k: v for k, v in values.items() if v is not None}}


inputs = list(dict.fromkeys(texts()))
asked = json.load(sys.stdin)
json.dump(
    {"version": importlib.metadata.version("python-dotenv"), "inputs": inputs, "answers": [answer(t) for t in inputs + asked]},
    sys.stdout,
)
