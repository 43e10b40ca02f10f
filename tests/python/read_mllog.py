"""Reads MLLOG files with mlperf-logging's own parser. Usage: read_mllog.py FILE...

Fails on a file with a line that the parser objects to; prints each file's keys in order as a line of JSON.
"""
import json
import sys

from mlperf_logging.compliance_checker.mlp_parser import parse_file

for path in sys.argv[1:]:
    lines, errors = parse_file(path, ruleset="6.0.0")
    for error in errors:
        print(f"{path}: {error}", file=sys.stderr)
    if errors or not lines:
        sys.exit(1)
    print(json.dumps([line.key for line in lines]))
