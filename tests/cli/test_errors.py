"""Everything that can be wrong around a command ends in one sentence and the right exit code."""

import pytest

from canary_rollout.cli.connect import connect
from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.cli.session import Target
from canary_rollout.kube.port import ApiError, ForbiddenError, NotFoundError


def test_a_name_that_comes_close_is_suggested(world):
    result = world.run("status", "chekout")
    assert result.exit_code == 1
    assert result.stderr == 'error: there is no CanaryRollout "chekout" in namespace shop; did you mean checkout?\n'


def test_a_rollout_of_another_namespace_is_pointed_at(world, make):
    world.put(make["rollout"](name="ledger", namespace="bank"))
    assert "there is one in bank: add -n bank" in world.run("status", "ledger").stderr


def test_otherwise_those_that_exist_are_named(world):
    assert "there are: checkout" in world.run("pause", "zzz").stderr


def test_in_an_empty_namespace_the_way_to_all_is_shown(world):
    assert "kubectl canary list -A" in world.run("status", "zzz", "-n", "empty").stderr


def test_without_the_right_to_list_the_name_is_still_said_to_be_missing(world):
    world.api.fail["list"] = ForbiddenError("no", status=403)
    result = world.run("status", "zzz")
    assert result.exit_code == 1
    assert 'no CanaryRollout "zzz" in namespace shop' in result.stderr


@pytest.mark.parametrize("words", [["status", "checkout"], ["list"], ["pause", "checkout"], ["list", "-A"]])
def test_a_cluster_without_the_operator_is_recognised(world, words):
    world.api.objects.clear()
    world.api.fail["list"] = NotFoundError("404 page not found", status=404)
    result = world.run(*words)
    assert result.exit_code == 1
    assert "the operator is not installed" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ForbiddenError("get canaryrollouts: denied (403)", status=403), 1, "ask for the ClusterRole view or edit"),
        (ForbiddenError("get canaryrollouts: who? (401)", status=401), 1, "is not accepted"),
        (ApiError("teapot", status=418), 1, "teapot"),
    ],
)
def test_errors_of_the_api_are_one_sentence(world, error, code, said):
    world.api.fail["get"] = error
    result = world.run("status", "checkout")
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unreachable_api_server_ends_with_three(world, make):
    world.api.fail["list"] = make["unavailable"]()
    result = world.run("list")
    assert result.exit_code == 3
    assert "--context" in result.stderr


def test_a_mistyped_command_names_the_close_one(world):
    result = world.run("pasue", "checkout")
    assert result.exit_code == 2
    assert "pause" in result.stderr


def test_an_unknown_option_is_a_usage_error(world):
    result = world.run("pause", "checkout", "--now")
    assert result.exit_code == 2
    assert "--now" in result.stderr


def test_no_command_at_all_shows_the_help(world):
    result = world.run()
    assert result.exit_code == 2
    assert "rollback" in result.output


def test_ctrl_c_ends_with_130(world):
    def interrupted():
        raise KeyboardInterrupt

    world.operator.tick = interrupted
    assert world.run("pause", "checkout").exit_code == 130


@pytest.mark.parametrize(
    "words",
    [
        ["--kubeconfig", "k", "--context", "c", "-n", "bank", "list"],
        ["list", "--kubeconfig", "k", "--context", "c", "-n", "bank"],
        ["--kubeconfig", "k", "-n", "shop", "list", "--context=c", "--namespace=bank"],
    ],
)
def test_global_options_count_before_and_after_the_verb_and_the_last_wins(world, words):
    world.run(*words)
    assert world.targets == [Target(kubeconfig="k", context="c", namespace="bank")]


async def refused(target):
    with pytest.raises(CliError) as caught:
        async with connect(target):
            pass
    assert caught.value.code is Exit.USAGE
    return str(caught.value)


async def test_a_kubeconfig_that_is_not_there_is_said_with_its_path(tmp_path):
    missing = str(tmp_path / "none")
    assert missing in await refused(Target(kubeconfig=missing))


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u, namespace: shop}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {token: secret-token}}]
"""


@pytest.mark.parametrize("text", ["{", "apiVersion: [", "[]", "just words", "", "contexts: 3"])
async def test_a_kubeconfig_that_makes_no_sense_is_said_not_raised(tmp_path, text):
    path = tmp_path / "config"
    path.write_text(text)
    assert str(path) in await refused(Target(kubeconfig=str(path)))


async def test_a_context_that_is_not_there_is_said_and_the_token_is_not(tmp_path):
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    sentence = await refused(Target(kubeconfig=str(path), context="elsewhere"))
    assert sentence == f'the kubeconfig {path} has no context "elsewhere"; it has here: pass --context or --kubeconfig'


async def test_a_kubeconfig_may_be_spread_over_files_of_which_some_are_not_there(tmp_path, monkeypatch):
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{path}")
    async with connect(Target()) as connection:
        assert connection.namespace == "shop"


async def test_a_kubeconfig_without_a_current_context_says_which_there_are(tmp_path):
    path = tmp_path / "config"
    path.write_text(KUBECONFIG.replace("current-context: here\n", ""))
    assert "names no current context; it has here" in await refused(Target(kubeconfig=str(path)))


async def test_the_namespace_is_the_contexts_unless_one_is_given(tmp_path):
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    async with connect(Target(kubeconfig=str(path))) as connection:
        assert connection.namespace == "shop"
    async with connect(Target(kubeconfig=str(path), namespace="bank")) as connection:
        assert connection.namespace == "bank"


async def test_outside_a_pod_the_kubeconfig_is_used_even_if_kubernetes_is_mentioned(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    assert "none" in await refused(Target())


async def test_in_a_pod_without_a_token_the_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    assert "--kubeconfig" in await refused(Target())
