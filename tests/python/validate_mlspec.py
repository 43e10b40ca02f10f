"""Validates cube files with mlspeclib and the schemas of the package mlcube. Usage: validate_mlspec.py FILE..."""
import os
import sys
from pathlib import Path

import mlcube
from mlspeclib import MLObject, MLSchema

schemas = os.path.join(os.path.dirname(mlcube.__file__), "schemas")
MLSchema.append_schema_to_registry(Path(schemas))
failed = False
for path in sys.argv[1:]:
    try:
        _, errors = MLObject.create_object_from_file(path)
    except Exception as error:  # mlspeclib raises several kinds
        errors = error
    if errors:
        print(f"{path}: {errors}", file=sys.stderr)
        failed = True
if failed:
    sys.exit(1)
print(f"{len(sys.argv) - 1} files are valid")
