"""Answers pip's questions to a build system from the source archive's PKG-INFO.

On the path as `sitecustomize` while pip downloads: nothing of the package runs, and no
build system has to be installed.
"""
import os
import sys

_asked = os.environ.get("_PYPROJECT_HOOKS_BUILD_BACKEND") or os.environ.get(
    "PEP517_BUILD_BACKEND", ""
)
_name = _asked.split(":")[0]

if _name:
    import email.parser
    import importlib.abc
    import importlib.machinery

    def _requires(config_settings=None):
        return []

    def _metadata(directory, config_settings=None):
        with open("PKG-INFO", encoding="utf-8") as file:
            head = email.parser.HeaderParser().parse(file)
        name, version = head["Name"], head["Version"]
        target = "%s-%s.dist-info" % (name.replace("-", "_"), version)
        os.makedirs(os.path.join(directory, target))
        with open(os.path.join(directory, target, "METADATA"), "w", encoding="utf-8") as file:
            file.write("Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version))
        return target

    class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name, path=None, target=None):
            if name == _name or _name.startswith(name + "."):
                return importlib.machinery.ModuleSpec(name, self, is_package=True)
            return None

        def create_module(self, spec):
            return None

        def exec_module(self, module):
            module.get_requires_for_build_wheel = _requires
            module.get_requires_for_build_sdist = _requires
            module.prepare_metadata_for_build_wheel = _metadata
            # Some build systems are named as `module:object`.
            module.__legacy__ = module

    sys.meta_path.insert(0, _Finder())
