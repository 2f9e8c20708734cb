"""Processes that are to work together meet, or each says in one line why they cannot."""

import importlib.metadata
import socket
import threading

import pytest

from finetune.errors import UserError
from finetune.hosts import meeting, relay
from finetune.hosts.meeting import Place
from finetune.hosts.versions import versions
from finetune.study import agreement
from tests.helpers.commands import free_port


def test_a_first_process_that_is_not_there(monkeypatch):
    assert meeting.JOIN_SECONDS < 60
    monkeypatch.setattr(meeting, "JOIN_SECONDS", 0.5)
    with pytest.raises(UserError, match=r"^--coordinator is '127.0.0.1:1', and no first process answers there"):
        meeting.meet(Place("127.0.0.1:1", 2, 1))


def test_others_that_do_not_come(monkeypatch, capsys):
    monkeypatch.setattr(meeting, "_GATHER_SECONDS", 0.5)
    monkeypatch.setattr(meeting, "_TELL_SECONDS", 0.1)
    where = f"127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=rf"^--coordinator is '{where}': processes 1, 2 of 3 did not come there"):
        meeting.meet(Place(where, 3, 0))
    assert f"waiting at {where} for processes 1, 2 of 3" in capsys.readouterr().out


def test_a_stranger_and_a_second_of_one_number_do_not_join(monkeypatch):
    monkeypatch.setattr(meeting, "_HELLO_SECONDS", 2.0)
    port = free_port()
    place, found = Place(f"127.0.0.1:{port}", 3, 0), []
    first = threading.Thread(target=lambda: found.extend(meeting.meet(place)))
    first.start()
    one = meeting.meet(place._replace(process=1))
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(UserError, match="--process is 1, which is there already, allowed: each number once"):
            meeting.meet(place._replace(process=1))
    two = meeting.meet(place._replace(process=2))
    first.join()
    assert [link.process for link in found] == [1, 2]
    for link in (*one, *two, *found):
        link.close()


def test_versions_that_differ():
    port, found = free_port(), []

    def first():
        with pytest.raises(UserError) as refused:
            meeting.meet(Place(f"127.0.0.1:{port}", 2, 0))
        found.append(str(refused.value))

    started = threading.Thread(target=first)
    started.start()
    link = meeting.Link(relay._reached("127.0.0.1", port))
    link.send({"versions": versions() | {"jax": "0.0.1"}, "processes": 2, "process": 1})
    answer = link.hello(5.0)
    started.join()
    link.close()
    assert found == [answer["refused"]]
    mine = importlib.metadata.version("jax")
    assert found[0].startswith(f"version of jax differs between processes: process 0 has {mine}, process 1 has 0.0.1, ")


def test_what_differs_is_shown_in_one_line():
    same = {"number of devices": "2", "grid": "x"}
    assert agreement.difference([same, dict(same)]) == ""
    line = agreement.difference([same, same, {"number of devices": "3", "grid": "y" * 200}])
    assert line == (
        "number of devices differs between processes: process 0 has 2, process 2 has 3; grid too, allowed: the same "
        "command and files everywhere"
    )


def test_the_end_of_the_service_does_not_reach_its_client():
    with socket.create_server(("127.0.0.1", 0)) as service:
        host, port = relay.start("127.0.0.1", service.getsockname()[1]).split(":")
        with socket.create_connection((host, int(port))) as client:
            served, _ = service.accept()
            client.sendall(b"question")
            assert served.recv(100) == b"question"
            served.sendall(b"answer")
            assert client.recv(100) == b"answer"
            served.close()
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.recv(100)
            client.sendall(b"question")
            with pytest.raises(TimeoutError):
                client.recv(100)
