"""Installs contrastasc from settings.ini, the one place where names, versions and requirements are written."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="], interpolation=None)
ini.read(here / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]
extras = {k.removesuffix("_requirements"): v.split() for k, v in cfg.items() if k.endswith("_requirements")}

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=" + cfg["min_python"],
    packages=["contrastasc", "contrastasc.data"],
    package_dir={"contrastasc": "contrastasc", "contrastasc.data": "data"},
    package_data={"contrastasc": ["static/*"], "contrastasc.data": ["*", "*/*"]},
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": ["contrastasc=contrastasc._modidx:d"]},
    zip_safe=False,
)
