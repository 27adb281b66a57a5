"""
Every command of the README and the documentation: that it is one, and that a test runs it or says why not.

`tests/e2e/test_pages_run.py` pastes every `sh` block into a shell, but those that are listed here.
"""

import re

import pytest
from cyclopts import CycloptsError, MissingArgumentError

from services.cli.main import commands
from tests.pasted import ROOT, Block, blocks, commands_in, said_in_passing

SECURED = "pasted on three nodes with TLS and ACLs by integration/test_secured_kafka.py, which `make long` runs"
CLUSTER = "needs a Kubernetes cluster; what it names, applies and scales is held by unit/test_manifests.py"
ENGINE = "needs a container engine; what it builds and starts is held by e2e/test_image.py and unit/test_manifests.py"
BENCH = "a load for minutes; e2e/test_bench.py runs it with a smaller one"
OPERATOR = """\
TENTERHOOK_KAFKA__USER=tenterhook-operator TENTERHOOK_KAFKA__PASSWORD_FILE=$PWD/operator.password \\
"""
FIRST_EVENT = (
    "export BROKER=",
    "for service in ingest dispatcher breaker admin operator maintainer; do",
    "openssl rand -base64 32 > kek && chmod",
    "export TENTERHOOK_BROKER=$BROKER",
    "TENTERHOOK_KAFKA__USER=kafka-admin ",
    f"{OPERATOR}  TENTERHOOK_KEK_FILE",
    "for service in ingest dispatcher breaker admin; do",
    "field()",
    f"{OPERATOR}  tenterhook trace",
)

NAMESPACE = """\
kubectl create namespace tenterhook
kubectl -n tenterhook create secret generic tenterhook-kek --from-file=kek
"""

#: Blocks that are not pasted, by their page and how they begin, each with what holds them instead.
NOT_PASTED = {
    ("README.md", "make up\n"): "`make up` is `tenterhook up`: docs/tutorial.md and e2e/test_up.py",
    ("README.md", "make up ARGS="): "as above; e2e/test_up.py takes both options",
    ("docs/commands.md", "tenterhook bench --start"): BENCH,
    **dict.fromkeys(
        (
            ("docs/commands.md", "tenterhook quarantine show"),
            ("docs/commands.md", "tenterhook quarantine put-back"),
        ),
        "pasted where something is in quarantine, as the user who may put it back: integration/test_secured_kafka.py",
    ),
    ("docs/consistency.md", "make chaos"): "half an hour of faults; consistency/test_chaos.py has a shorter run",
    **{("docs/deploying.md", start): SECURED for start in FIRST_EVENT},
    ("docs/deploying.md", "docker build "): ENGINE,
    ("docs/deploying.md", "openssl rand -base64 32 > deploy/compose/kek"): ENGINE,
    ("docs/deploying.md", f"{NAMESPACE}kubectl apply"): CLUSTER,
    ("docs/deploying.md", f"{NAMESPACE}kubectl -n"): CLUSTER,
    ("docs/deploying.md", "kubectl -n tenterhook rollout"): CLUSTER,
    ("docs/deploying.md", "kubectl -n tenterhook scale deployment/commands"): CLUSTER,
    ("docs/deploying.md", "kubectl -n tenterhook exec deployment/commands"): CLUSTER,
    ("docs/deploying.md", "kubectl -n tenterhook scale deployment/ingest"): CLUSTER,
    ("docs/operating.md", "kubectl kustomize"): CLUSTER,
    ("docs/operating.md", "printf 'int_…:' | kcat"): (
        "pasted where a record of an integration cannot be read, and one of an app: integration/test_kafka_tools.py"
    ),
    ("docs/tracing.md", "docker run"): ENGINE,
}


def reason_of(block: Block) -> str | None:
    """Why a block is not pasted."""
    return next(
        (why for (page, start), why in NOT_PASTED.items() if block.page == page and block.text.startswith(start)), None
    )


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_every_command_of_a_block_is_one(block):
    app = commands()
    for call in block.calls:
        try:
            app.parse_args(call, exit_on_error=False, print_error=False)
        except CycloptsError as wrong:
            pytest.fail(f"{block}: tenterhook {' '.join(call)}: {wrong}")


def test_every_command_in_a_sentence_is_one():
    app = commands()
    wrong = []
    for page, call in said_in_passing():
        if call[0] == "COMMAND" or "--help" in call:
            continue
        try:
            app.parse_args(call, exit_on_error=False, print_error=False)
        except MissingArgumentError:
            pass  # a sentence may name a command without its arguments
        except CycloptsError as error:
            wrong.append(f"{page}: tenterhook {' '.join(call)}: {error}")

    assert wrong == []


def test_every_make_target_and_script_of_a_block_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for block in blocks():
        for words in commands_in(block.text):
            if words[0] == "make":
                assert words[1] in targets, block
            if words[0].startswith("deploy/"):
                assert (ROOT / words[0]).exists(), block


def test_a_block_that_is_not_pasted_is_there_and_says_why():
    found = [
        (block.page, start)
        for block in blocks()
        for page, start in NOT_PASTED
        if (page, start) == (block.page, block.text[: len(start)])
    ]

    assert sorted(found) == sorted(NOT_PASTED)
    for why in NOT_PASTED.values():
        for file in re.findall(r"\w+/test_\w+\.py", why):
            assert (ROOT / "tests" / file).exists()


def test_no_command_hides_in_a_block_without_its_kind():
    hidden = [
        str(block)
        for block in blocks("")
        if re.search(r"^(\$ |curl |make |kubectl |docker |tenterhook [a-z]+( |$))", block.text, re.MULTILINE)
    ]

    assert hidden == [], "a block of commands begins with ```sh, so that it is pasted by a test"


def test_what_is_taken_for_a_command():
    text = """
# a remark
export A=1 B=$(cat file)
X=1 tenterhook send a --payload '{"b": 1}' --id "c d" > out 2>&1 &   # another
generate | .venv/bin/tenterhook send b --payload -
for each in x y; do
  tenterhook $each --out ${each}.log
done
cat > file <<'END'
tenterhook no command
END
kubectl -n tenterhook exec admin-0 -- tenterhook tokens first ops
kubectl create namespace tenterhook
"""
    assert Block("page", 1, "sh", text).calls == [
        ["send", "a", "--payload", '{"b": 1}', "--id", "c d"],
        ["send", "b", "--payload", "-"],
        ["x", "--out", "x.log"],
        ["y", "--out", "y.log"],
        ["tokens", "first", "ops"],
    ]
