import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_rollout.local.addresses import PodAddresses, claim_addresses, listen_address
from canary_rollout.local.errors import LocalClusterError
from canary_rollout.local.ports import HIGHEST, LOWEST, free_port

OCTETS = st.integers(0, 255)


@given(OCTETS, OCTETS, OCTETS)
def test_a_pod_address_maps_to_loopback_and_keeps_its_other_octets(a, b, c):
    assert listen_address(f"10.{a}.{b}.{c}") == f"127.{a}.{b}.{c}"


@pytest.mark.parametrize("address", ["127.0.0.1", "192.168.1.1", "100.10.1.1"])
def test_other_addresses_are_left_alone(address):
    assert listen_address(address) == address


def test_addresses_are_different_and_a_freed_one_is_not_given_again_at_once():
    addresses = PodAddresses("10.244")
    taken = [addresses.take() for _ in range(600)]
    assert len(set(taken)) == 600
    assert taken[0] == "10.244.1.2"
    assert all(0 < int(octet) < 255 for address in taken for octet in address.split(".")[2:])
    addresses.give_back(taken[0])
    assert addresses.take() not in taken


def test_when_all_addresses_are_used_it_says_so(monkeypatch):
    monkeypatch.setattr("canary_rollout.local.addresses.PODS_PER_CLUSTER", 3)
    addresses = PodAddresses("10.244")
    taken = [addresses.take() for _ in range(3)]
    with pytest.raises(LocalClusterError, match="in use"):
        addresses.take()
    addresses.give_back(taken[1])
    assert addresses.take() == taken[1]


def test_two_clusters_get_different_ranges_and_a_closed_one_is_free_again():
    first, second = claim_addresses(), claim_addresses()
    try:
        assert first.pod_prefix != second.pod_prefix
        assert first.service_range != second.service_range
    finally:
        first.claim.close()
        second.claim.close()
    again = claim_addresses()
    again.claim.close()
    assert again.slot <= second.slot


def test_ports_are_free_different_and_below_the_range_of_outgoing_connections():
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert all(LOWEST <= port <= HIGHEST < 32768 for port in ports)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports[0]))


def test_a_port_in_use_is_not_given(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        monkeypatch.setattr("canary_rollout.local.ports._random.randint", lambda *_: taken)
        with pytest.raises(OSError, match="no free port"):
            free_port()
