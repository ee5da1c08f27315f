"""The app in a server of its own, and a visitor who sees it as a browser does."""

import socket
import threading
from pathlib import Path

import pytest
import uvicorn

from roost.appliance.visitor import Visitor
from roost.loader import load


@pytest.fixture(scope="session")
def address():
    app = load(str(Path(__file__).with_name("main.py")))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def visitor(address):
    with Visitor(address) as visitor:
        yield visitor.visit()
