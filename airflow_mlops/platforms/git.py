"""Read and write a remote git repository through a small bare mirror, without ever having a work tree of it.

Only what is asked for is fetched: one commit deep, and files when they are read. Commits are made from tree entries,
so that two writers never share a checkout. User name and password go to git in its environment and must never appear
in an argument list, in a configuration file or in a message.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from airflow_mlops.core.errors import (
    InvalidSpecError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
    close_match,
    redact,
)
from airflow_mlops.core.locks import file_lock
from airflow_mlops.platforms.git_access import git_environment, split_credentials

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
_REFUSED = ("authentication failed", "could not read username", "permission denied", "403", "hook declined", "401")
_ABSENT = ("repository not found", "does not appear to be a git repository", "does not exist", "returned error: 404")
_OVERTAKEN = (
    "non-fast-forward",
    "fetch first",
    "already exists",
    "cannot lock ref",
    "incorrect old value",
    "stale info",
)


class RefMovedError(MlopsError):
    """A push came too late: somebody moved the branch or made the tag first. Nothing of it was accepted."""


class GitRepository:
    """A git repository, local or remote.

    :param address: path or URL; a user name and password in it are used as credentials and taken out
    :param mirrors: folder for the bare mirror; may be shared by many processes
    :param author: ``Name <mail>`` of the commits made here
    :param timeout: seconds one git command may take
    """

    def __init__(
        self,
        address: str,
        mirrors: Path,
        *,
        login: str = "",
        password: str = "",
        author: str = "airflow-mlops <airflow-mlops@localhost>",
        timeout: float = 600.0,
    ) -> None:
        self.address, user, secret = split_credentials(address)
        self.mirror = mirrors / (hashlib.sha256(self.address.encode()).hexdigest()[:16] + ".git")
        self._environment = git_environment(self.address, login or user, password or secret, author)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"GitRepository({self.address!r})"

    def refs(self) -> dict[str, str]:
        """Return ``HEAD``, ``refs/heads/...`` and ``refs/tags/...`` -> commit id. Annotated tags are peeled."""
        lines = self._git("ls-remote", "--", self.address, "HEAD", "refs/heads/*", "refs/tags/*").splitlines()
        pairs = [line.split("\t", 1) for line in lines]
        found = {name: commit for commit, name in pairs if not name.endswith("^{}")}
        return found | {name.removesuffix("^{}"): commit for commit, name in pairs if name.endswith("^{}")}

    def default_branch(self) -> str:
        """Return the name of the branch that ``HEAD`` of the remote points to."""
        first = self._git("ls-remote", "--symref", "--", self.address, "HEAD").splitlines()[:1]
        if not first or not first[0].startswith("ref: refs/heads/"):
            raise NotFoundError(f"Repository {self.address!r} has no default branch. Push a first commit to it.")
        return first[0].split("\t")[0].removeprefix("ref: refs/heads/")

    def commit_of(self, rev: str) -> str:
        """Return the full id of the commit that a branch, tag, commit id or ``HEAD`` means now.

        :raises NotFoundError: there is none; the message lists a close branch or tag
        """
        refs = self.refs()
        for name in (rev, f"refs/tags/{rev}", f"refs/heads/{rev}"):
            if name in refs:
                self.have(refs[name])
                return refs[name]
        if _COMMIT.fullmatch(rev) or _SHORT_COMMIT.fullmatch(rev):
            return self._find_commit(rev, refs)
        raise _unknown_revision(rev, self.address, refs)

    def read(self, commit: str, path: str) -> bytes | None:
        """Return the content of a file at a commit that was resolved before, or ``None`` when there is none."""
        if not self._git("ls-tree", commit, "--", path).startswith("100"):
            return None
        return self._run("cat-file", "blob", f"{commit}:{path}").stdout

    def paths(self, commit: str) -> list[str]:
        """Return every file's path at a commit that was resolved before."""
        return [path for path in self._git("ls-tree", "-r", "-z", "--name-only", commit).split("\0") if path]

    def export(self, commit: str, to: Path) -> Path:
        """Write the files of *commit* to the folder *to*, complete or not at all, and return it.

        A folder that already holds these very files is kept.

        :raises InvalidSpecError: *to* holds something else
        """
        self.have(commit)
        with (
            file_lock(to.parent / f".{to.name}.lock"),
            tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as scratch,
        ):
            index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
            if to.exists() and any(to.iterdir()):
                return self._kept(commit, to, index)
            files = Path(scratch, "files")
            files.mkdir()
            self._git(f"--work-tree={files}", "read-tree", "--reset", "-u", commit, env=index)
            files.rename(to)
        return to

    def commit(self, parent: str, files: Mapping[str, bytes], message: str) -> str:
        """Return the id of a new commit that sets *files* on top of *parent*. It is not pushed yet."""
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
            self._git("read-tree", parent, env=index)
            for path, content in files.items():
                blob = self._git("hash-object", "-w", "--stdin", stdin=content).strip()
                self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=index)
            tree = self._git("write-tree", "--missing-ok", env=index).strip()
        return self._git("commit-tree", tree, "-p", parent, "-F", "-", stdin=message.encode()).strip()

    def push(self, commit: str, names: Iterable[str]) -> None:
        """Point all of *names* (``refs/heads/...``, ``refs/tags/...``) to *commit* at once, or none of them.

        :raises RefMovedError: a branch would not move forward, or a tag exists already
        """
        result = self._run("push", "--atomic", "--", self.address, *(f"{commit}:{name}" for name in names), check=False)
        if result.returncode == 0:
            return
        said = result.stderr.decode(errors="replace")
        if any(sign in said for sign in _OVERTAKEN):
            raise RefMovedError(f"{self.address!r} moved on meanwhile. Look again before trying again.")
        raise self._error("push", said)

    def _find_commit(self, rev: str, refs: Mapping[str, str]) -> str:
        try:
            if _COMMIT.fullmatch(rev):
                self.have(rev)
            else:
                self._git("fetch", "-q", "--filter=blob:none", *self._deepen(), "--", "origin", "+refs/*:refs/remote/*")
            return self._git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}").strip()
        except PlatformUnavailableError as error:
            if self.refs() == refs:
                raise _unknown_revision(rev, self.address, refs) from error
            raise

    def _deepen(self) -> list[str]:
        return ["--unshallow"] if (self.mirror / "shallow").exists() else []

    def have(self, commit: str) -> None:
        """Bring a commit, given by its full id, into the mirror. Its files come when they are read."""
        with file_lock(self.mirror.with_suffix(".lock")):
            if self._run("cat-file", "-e", f"{commit}^{{tree}}", check=False).returncode != 0:
                self._git("fetch", "-q", "--depth=1", "--no-tags", "--filter=blob:none", "--", "origin", commit)

    def _kept(self, commit: str, to: Path, index: Mapping[str, str]) -> Path:
        self._git("read-tree", commit, env=index)
        if self._run(f"--work-tree={to}", "update-index", "--refresh", env=index, check=False).returncode != 0:
            raise InvalidSpecError(f"Folder {str(to)!r} holds other files than commit {commit!r}. Choose an empty one.")
        return to

    def _create(self) -> None:
        """Make the mirror when it is not there. Many processes may try at once."""
        settings = {
            "remote.origin.url": self.address,
            "remote.origin.promisor": "true",
            "remote.origin.partialclonefilter": "blob:none",
            "extensions.partialclone": "origin",
            "core.repositoryformatversion": "1",
            "gc.auto": "0",
        }
        self.mirror.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=self.mirror.parent))
        self._call(["git", "init", "-q", "--bare", str(scratch)])
        for key, value in settings.items():
            self._call(["git", f"--git-dir={scratch}", "config", key, value])
        try:
            scratch.rename(self.mirror)
        except OSError:  # another process was faster
            shutil.rmtree(scratch)

    def _git(self, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        return self._run(*args, stdin=stdin, env=env).stdout.decode()

    def _run(
        self, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        if not self.mirror.exists():
            self._create()
        result = self._call(["git", f"--git-dir={self.mirror}", *args], stdin, env)
        if check and result.returncode != 0:
            raise self._error(args[0], result.stderr.decode(errors="replace"))
        return result

    def _call(
        self, argv: list[str], stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                argv,
                input=stdin,
                env={**self._environment, **(env or {})},
                capture_output=True,
                timeout=self._timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise InvalidSpecError("The program 'git' is not installed on this worker. Install it.") from error
        except subprocess.TimeoutExpired:
            raise PlatformUnavailableError(f"{self.address!r} did not answer within {self._timeout} s.") from None

    def _error(self, verb: str, said: str) -> MlopsError:
        text = redact(said).strip()[-500:]
        message = f"git {verb} on {self.address!r} failed: {text!r}."
        if any(sign in text.lower() for sign in _REFUSED):
            return InvalidSpecError(f"{message} Check login, password and rights in the connection.")
        if any(sign in text.lower() for sign in _ABSENT):
            return NotFoundError(f"{message} Check the address of the repository.")
        return PlatformUnavailableError(message)


def _unknown_revision(rev: str, address: str, refs: Mapping[str, str]) -> NotFoundError:
    names = sorted({name.split("/", 2)[-1] for name in refs if name != "HEAD"})
    shown = ", ".join(names[:10]) or "none"
    return NotFoundError(
        f"Repository {address!r} has no revision {rev!r}: {close_match(rev, names)}"
        f"Branches and tags: {shown}{', ...' if len(names) > 10 else ''}."
    )
