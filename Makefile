LOCK_FLAGS := -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
lock:
	$(UV) pip compile $(LOCK_FLAGS) --all-extras --group build pyproject.toml -o requirements/runtime.txt
