"""The fixed lists of developers' tools: the only names of commands and processes that are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Dict, FrozenSet, NamedTuple, Optional, Tuple


def _table(text: str) -> Dict[str, str]:
    """Return name to tool from lines of `tool: name name ...`; the tool itself is a name."""
    table = {}
    for line in text.split("\n"):
        tool, _, names = line.partition(":")
        for name in (tool, *names.split()):
            if name:
                table[name] = tool
    return table


# The first word of a command line, and the tool that it is evidence of.
COMMANDS = _table(
    """git: gitk tig lazygit
gh
glab
svn
hg
jj
make: gmake
cmake: ctest cpack
ninja
meson
gcc: g++ cc c++
clang: clang++
gdb
lldb
valgrind
bazel: bazelisk
gradle: gradlew
maven: mvn mvnw
ant
sbt
java: javac jshell
kotlin: kotlinc
scala
node: npm npx yarn pnpm corepack nodemon tsc ts-node tsx jest vitest mocha cypress playwright \
webpack vite eslint prettier
bun: bunx
deno
python: python2 python3 pip pip3 pipx pipenv poetry uv uvx hatch pdm conda mamba pytest tox nox \
ruff mypy black ipython jupyter
go: gofmt golangci-lint dlv
rust: cargo rustc rustup
dotnet: msbuild nuget
ruby: bundle bundler gem rake rspec rails irb
php: composer phpunit artisan
perl: prove
elixir: mix iex
swift: xcodebuild xcrun pod
flutter: dart
docker: docker-compose
podman
kubectl: kubectx kubens
helm
minikube: kind k3d
k9s
skaffold: tilt
terraform: terragrunt tofu
pulumi
ansible: ansible-playbook
vagrant
packer
aws: sam cdk
gcloud
azure: az
heroku: flyctl vercel netlify
psql: pg_dump
mysql: mariadb
sqlite3
redis-cli
mongosh
vim: vi nvim gvim vimdiff
emacs: emacsclient
nano
helix: hx
vscode: code code-insiders codium
zed
sublime: subl
intellij: idea
pycharm
goland
webstorm
cursor: cursor-agent
claude
codex
copilot
gemini
aider"""
)

# The name of a process (without .exe), and the tool that it is evidence of.
PROCESSES = _table(
    """vscode: code code-insiders codium code-oss
cursor: cursor-agent
windsurf
zed: zed-editor
vim: vi nvim gvim vim.basic vim.tiny macvim
emacs: emacs-gtk emacs-nox emacs-x
helix: hx
sublime: sublime_text
intellij: idea idea64 intellij-idea-community intellij-idea-ultimate
pycharm: pycharm64
goland: goland64
webstorm: webstorm64
phpstorm: phpstorm64
rubymine: rubymine64
clion: clion64
rider: rider64
datagrip: datagrip64
rustrover: rustrover64
android-studio: studio studio64
visual-studio: devenv
xcode
eclipse
docker: docker-desktop com.docker.backend com.docker.cli
podman: podman-desktop
rancher-desktop
colima: lima
minikube
dbeaver
postman
insomnia
claude
codex
copilot: github-copilot copilot-agent
gemini
aider
ollama"""
)
_PROCESSES = {name.lower(): tool for name, tool in PROCESSES.items()}

# Words before the command itself.
PREFIXES = frozenset(
    {"sudo", "doas", "time", "nohup", "nice", "env", "command", "exec", "builtin", "winpty"}
    | {"noglob", "nocorrect", "if", "then", "elif", "else", "while", "until", "do", "!"}
    | {"and", "or", "not", "begin"}  # fish's
)

TEST, BUILD = "test", "build"
# A command without a sub-command that is a run of tests or a build by itself.
_TESTERS = _table("test: pytest tox nox jest vitest mocha cypress ctest rspec phpunit prove")
_BUILDERS = _table("build: ninja msbuild tsc webpack ant xcodebuild")
_RUNS = {**_TESTERS, **_BUILDERS}


def _subcommands(text: str) -> Dict[str, Tuple[FrozenSet[str], FrozenSet[str]]]:
    table = {}
    for line in text.split("\n"):
        names, tests, builds = (frozenset(part.split()) for part in line.split("|"))
        for name in names:
            table[name] = (tests, builds)
    return table


# Commands | sub-commands that run tests | sub-commands that build.
_SUBCOMMANDS = _subcommands(
    """npm yarn pnpm bun | test t tst | build
npx pnpx bunx yarn | jest vitest mocha cypress playwright | tsc webpack vite
deno | test | compile
python python3 python2 | pytest unittest | build
poetry uv pipenv hatch pdm | pytest test | build
go | test | build install
cargo | test nextest | build
make gmake | test tests check | all build
cmake | | --build
bazel bazelisk | test | build
gradle gradlew | test check | build assemble
mvn mvnw | test verify integration-test | package install compile
sbt | test | compile package assembly
dotnet | test | build publish
ninja meson | test | compile
rake rails artisan | test spec | assets:precompile
bundle | rspec |
mix | test | compile
swift | test | build
flutter dart | test | build compile
docker podman docker-compose | | build buildx
xcodebuild | test | build archive
composer | test |
helm | | package
prove | |"""
)
# Between the command and its sub-command: `npm run test`, `python -m pytest`, `poetry run pytest`.
_BETWEEN = {
    "run", "run-script", "-m", "exec", "compose", "x", "dlx", "task",
    "-s", "-q", "--silent", "--quiet",
}  # fmt: skip
_BARE_BUILDS = {"make", "gmake"}


class CommandUse(NamedTuple):
    """One command of the list: the name to count, its tool, and the kind of run."""

    name: str
    tool: str
    run: str = ""


def recognize_command(words: Sequence[str]) -> Optional[CommandUse]:
    """Return the use that the words of one simple command are; None if it is not on the list."""
    words = list(words)
    while words and (words[0] in PREFIXES or _is_assignment(words[0])):
        words.pop(0)
    if not words:
        return None
    command = words[0].replace("\\", "/").rpartition("/")[2]
    for suffix in (".exe", ".cmd", ".bat"):
        if command.lower().endswith(suffix):
            command = command[: -len(suffix)]
    tool = COMMANDS.get(command)
    if tool is None:
        return None
    subcommand, run = _recognize_run(command, words[1:])
    return CommandUse(command + " " + subcommand if subcommand else command, tool, run)


def _recognize_run(command: str, arguments: Sequence[str]) -> Tuple[str, str]:
    """Return the sub-command from the list and the kind of run; both empty for other uses."""
    tests, builds = _SUBCOMMANDS.get(command, (frozenset(), frozenset()))
    position = 0
    while position < len(arguments) and arguments[position] in _BETWEEN:
        position += 1
    word = arguments[position] if position < len(arguments) else ""
    # A script or target of one's own, such as test:unit, counts by the part before the colon.
    for candidate in (word, word.partition(":")[0]):
        if candidate in tests:
            return candidate, TEST
        if candidate in builds:
            return candidate, BUILD
    if command in _RUNS:
        return "", _RUNS[command]
    return "", BUILD if command in _BARE_BUILDS and not arguments else ""


def _is_assignment(word: str) -> bool:
    name, sign, _ = word.partition("=")
    return bool(sign) and name.isidentifier()


def recognize_process(name: str) -> Optional[str]:
    """Return the tool that a process belongs to; None if it is not on the list."""
    name = name.replace("\\", "/").rpartition("/")[2].lower()
    if name.endswith(".exe"):
        name = name[:-4]
    return _PROCESSES.get(name)
