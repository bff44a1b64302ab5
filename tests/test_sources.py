"""Import closure on a toy package, and keys made of content alone."""

import hashlib
import textwrap
from pathlib import Path

import numpy as np
import pytest

from sonolens import sources


@pytest.fixture
def toy(tmp_path):
    """Folder `src` with a package named sonolens; call it with file names and their text."""
    src = tmp_path / "src"

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = src / "sonolens" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        return src

    return write


def closure(src: Path, *modules: str) -> list[str]:
    root = src / "sonolens"
    return [path.relative_to(root).as_posix() for path in sources.import_closure(*modules, src=src)]


def test_follows_every_form_of_import(toy):
    src = toy(
        {
            "__init__.py": "",
            "top.py": """
            import json, sonolens.plain
            import sonolens.low.deep as short
            from sonolens import member
            from sonolens.low import other, VALUE
            from sonolens.named import function
            from sonolens.star import *
            def work():
                from sonolens.lazy import thing
                class Inner:
                    import sonolens.inner
            try:
                import sonolens.tried
            except ImportError:
                import sonolens.fallback
        """,
            "low/__init__.py": "VALUE = 1",
            "low/deep.py": "",
            "low/other.py": "import sonolens.second",
            **{
                f"{name}.py": ""
                for name in (
                    "plain",
                    "member",
                    "named",
                    "star",
                    "lazy",
                    "inner",
                    "tried",
                    "fallback",
                    "second",
                    "unused",
                    "VALUE",
                )
            },
        }
    )
    assert closure(src, "sonolens.top") == [
        "fallback.py",
        "inner.py",
        "lazy.py",
        "low/deep.py",
        "low/other.py",
        "member.py",
        "named.py",
        "plain.py",
        "second.py",
        "star.py",
        "top.py",
        "tried.py",
    ]


def test_follows_relative_imports(toy):
    src = toy(
        {
            "a/one.py": "from . import two\nfrom .three import x\n"
            "from ..b import four\nfrom ..five import y",
            "a/two.py": "",
            "a/three.py": "",
            "b/four.py": "",
            "five.py": "",
            "two.py": "",
        }
    )
    assert closure(src, "sonolens.a.one") == [
        "a/one.py",
        "a/three.py",
        "a/two.py",
        "b/four.py",
        "five.py",
    ]


def test_imports_for_type_checkers_do_not_count_but_their_else_does(toy):
    src = toy(
        {
            "top.py": """
            from typing import TYPE_CHECKING
            import typing
            if TYPE_CHECKING:
                import sonolens.hidden
                if True:
                    import sonolens.hidden
            else:
                import sonolens.seen
            if typing.TYPE_CHECKING:
                import sonolens.hidden
            if not TYPE_CHECKING:
                import sonolens.runtime
        """,
            "hidden.py": "",
            "seen.py": "",
            "runtime.py": "",
        }
    )
    assert closure(src, "sonolens.top") == ["runtime.py", "seen.py", "top.py"]


def test_exempt_files_and_what_only_they_import_do_not_count(toy):
    src = toy(
        {
            "top.py": "import sonolens.registry, sonolens.track, sonolens.stages\n"
            "import sonolens.cli, sonolens.pack.child",
            "pack/__init__.py": "import sonolens.behind",
            "pack/child.py": "",
            **{
                name: "import sonolens.behind"
                for name in ("registry.py", "track.py", "stages.py", "cli.py")
            },
            "behind.py": "",
        }
    )
    assert closure(src, "sonolens.top") == ["pack/child.py", "top.py"]


def test_cycles_end(toy):
    src = toy(
        {"a.py": "import sonolens.b", "b.py": "from sonolens import c", "c.py": "import sonolens.a"}
    )
    assert closure(src, "sonolens.a") == closure(src, "sonolens.c") == ["a.py", "b.py", "c.py"]


def test_several_starts_are_joined_and_other_packages_ignored(toy):
    src = toy({"a.py": "import numpy, os.path, sonolensation", "b.py": "import sonolens.a"})
    assert closure(src, "sonolens.a", "sonolens.b", "sonolens.a") == ["a.py", "b.py"]


def test_a_module_without_file_is_named(toy):
    with pytest.raises(ModuleNotFoundError, match=r"sonolens\.none: no such module below"):
        closure(toy({"a.py": ""}), "sonolens.none")


def test_the_key_of_code_changes_with_the_content_of_the_closure_alone(toy, monkeypatch):
    src = toy({"a.py": "import sonolens.b", "b.py": "", "c.py": ""})
    monkeypatch.setattr(sources, "source_root", lambda: src)
    first = sources.code_key("sonolens.a")
    assert set(first) == {"sonolens/a.py", "sonolens/b.py"}
    toy({"c.py": "changed = 1"})
    assert sources.code_key("sonolens.a") == first
    toy({"b.py": "changed = 1"})
    second = sources.code_key("sonolens.a")
    assert {name for name in first if first[name] != second[name]} == {"sonolens/b.py"}
    toy({"b.py": "import sonolens.c"})
    assert set(sources.code_key("sonolens.a")) == {
        "sonolens/a.py",
        "sonolens/b.py",
        "sonolens/c.py",
    }


def test_the_real_package_stands_on_files_that_exist():
    found = sources.code_key("sonolens.store")
    assert found["sonolens/store.py"] == sources.file_digest(
        Path(sources.source_root()) / "sonolens" / "store.py"
    )


def test_digest_of_a_file_is_its_md5(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"", b"abc", bytes(300_000)):
        path.write_bytes(content)
        assert sources.file_digest(path) == hashlib.md5(content).hexdigest()


def test_digest_of_a_folder_is_one_of_names_and_contents(tmp_path):
    def folder(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return sources.file_digest(tmp_path / name)

    base = folder("one", {"a": "1", "b/c": "2"})
    assert folder("two", {"b/c": "2", "a": "1", "__pycache__/x.pyc": "3"}) == base
    assert folder("three", {"a": "2", "b/c": "1"}) != base
    assert folder("four", {"a": "1", "c": "2"}) != base
    assert folder("five", {"a": "1", "b/c": "2", "d": ""}) != base


def test_content_keys_are_stable_and_tell_contents_apart():
    assert sources.content_key(b=[1, 2.5], a={"y": None, "x": "é"}) == (
        hashlib.sha256(rb'{"a":{"x":"\u00e9","y":null},"b":[1,2.5]}').hexdigest()
    )
    assert sources.content_key(a=(1, 2)) == sources.content_key(a=[1, 2])
    assert sources.content_key(a=np.int64(1), b=np.float64(0.5)) == sources.content_key(a=1, b=0.5)
    assert sources.content_key(a=Path("x") / "y") == sources.content_key(a="x/y")
    keys = [sources.content_key(a=value) for value in (1, 1.5, "1", [1], None, True, {"a": 1})]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("part", [np.zeros(3), {1, 2}, object()])
def test_what_has_no_stable_text_makes_no_key(part):
    with pytest.raises(TypeError, match="content_key: found a"):
        sources.content_key(a=part)
