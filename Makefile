# make course   install, export the library, run every chapter, print the results
# make test     all tests and the checks of every notebook
# make lab      open the course in JupyterLab, on this machine only
# make soak     live enrolment for ten minutes in a browser
# make app      serve the embedding explorer as an app, on this machine only
PYTHON ?= python3
BIN := .venv/bin
export CONTRASTASC_HOME ?= $(CURDIR)/.cache

.PHONY: course test soak lab app export readme gates

course: .venv/.installed
	$(BIN)/nbdev_export
	$(BIN)/python tools/chapters.py --scale class --results

test: .venv/.installed
	$(BIN)/python tools/test.py

soak: .venv/.installed
	CONTRASTASC_SOAK_MINUTES=10 $(BIN)/python -m pytest -q -s tests/test_enroll.py -k streaming

lab: .venv/.installed
	$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=nbs

app: .venv/.installed
	$(BIN)/voila nbs/17_explore.ipynb --Voila.ip=127.0.0.1 --preheat_kernel=True

export: .venv/.installed
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_export
	$(BIN)/python tools/readme.py

readme: export

gates: .venv/.installed
	$(BIN)/python tools/gates.py

.venv/.installed: settings.ini setup.py tools/setup_env.py tools/constraints.txt
	$(PYTHON) tools/setup_env.py
