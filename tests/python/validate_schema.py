"""Holds YAML or JSON files against a JSON Schema. Usage: validate_schema.py SCHEMA FILE...

Fails if the schema itself is none; prints the first fault of each file, or an empty text, as a JSON list.
"""
import json
import sys

import yaml
from jsonschema import Draft202012Validator

with open(sys.argv[1]) as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
faults = []
for path in sys.argv[2:]:
    with open(path) as file:
        value = json.load(file) if path.endswith(".json") else yaml.safe_load(file)
    faults.append(next((error.message for error in validator.iter_errors(value)), ""))
print(json.dumps(faults))
