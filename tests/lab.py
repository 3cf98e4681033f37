"A notebook in a real JupyterLab in a real browser that can reach this machine and nothing else."
import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
          "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required").split()
_QUIET = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
_SESSION = "window.jupyterapp.shell.currentWidget.sessionContext.session"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def _served(command, port, folder):
    "Run a server until it listens; gives its address, and stops it afterwards, its kernels with it."
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen([Path(sys.executable).with_name(command[0]), *command[1:]], stdout=log, stderr=log, cwd=folder)
    try:
        for _ in range(240):
            try: socket.create_connection(("127.0.0.1", port), 2).close(); break
            except OSError: time.sleep(0.25)
        else: raise RuntimeError((folder / "server.log").read_text()[-2000:])
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try: server.wait(15)
        except subprocess.TimeoutExpired: server.kill()


def jupyter(folder: Path, program="lab", more=()):
    "Serve a folder in JupyterLab or Notebook."
    port, settings = free_port(), folder / ".settings"
    settings.mkdir(exist_ok=True)
    (settings / "overrides.json").write_text(json.dumps(_QUIET))
    command = ["jupyter", program, "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
               "--IdentityProvider.token=t", "--allow-root", f"--notebook-dir={folder}", *more]
    if program == "lab": command += ["--expose-app-in-browser", f"--LabApp.app_settings_dir={settings}"]
    return _served(command, port, folder)


def voila(folder: Path, name):
    "Serve one notebook as an app."
    port = free_port()
    return _served(["voila", "--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}", folder / name], port, folder)


def window(chromium, width=1400, height=1300, **options):
    "A page that notes in `page.strangers` what it wanted from other machines, and in `page.faults` what went wrong; it gets neither."
    page = chromium.new_page(viewport=dict(width=width, height=height), **options)
    page.strangers, page.faults = [], []
    def route(request):
        if request.request.url.startswith(("http://127.0.0.1", "http://notebook.test", "file:", "blob:", "data:")): return request.continue_()
        page.strangers.append(request.request.url); request.abort()
    page.route("**/*", route)
    page.on("pageerror", lambda e: page.faults.append(str(e)))
    return page


@contextmanager
def browser(*flags):
    "Chromium, with further flags."
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS, *flags])
        try: yield chromium
        finally: chromium.close()


def write_notebook(path: Path, *cells):
    about = dict(kernelspec=dict(name="python3", display_name="Python 3", language="python"))
    nbformat.write(new_notebook(cells=[new_code_cell(c) for c in cells], metadata=about), path)


def open_lab(page, address, name):
    "Open a notebook in JupyterLab and wait for its kernel."
    page.goto(f"{address}/lab/tree/{name}?reset&token=t")
    page.wait_for_function(f"window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'", timeout=90000)
    page.evaluate("() => { window.jupyterapp.commands.execute('application:toggle-left-area') }")


def run_all(page): page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")


def microphone(path):
    "Chromium's flags for a microphone that plays a wav file from the moment it is opened, and a user who allows it."
    return "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={path}"


def stop_kernel(page): page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")


def kernel(page, code):
    "Run code in the notebook's kernel and give what it prints, read as JSON."
    text = page.evaluate("""async (code) => {
        const future = %s.kernel.requestExecute({ code }); let text = '', error = '';
        future.onIOPub = (m) => { if (m.header.msg_type === 'stream' && m.content.name === 'stdout') text += m.content.text;
                                  if (m.header.msg_type === 'error') error = m.content.ename + ': ' + m.content.evalue; };
        await future.done;
        if (error) throw new Error(error);
        return text; }""" % _SESSION, code)
    return json.loads(text) if text.strip() else None
