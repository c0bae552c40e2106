import socket
import sys

from gateways import fastcgi
from gateways.events import BodyEnded

with socket.create_server(("127.0.0.1", 9000)) as listening:
    print("waiting on port 9000", file=sys.stderr, flush=True)
    connection, _ = listening.accept()

protocol, received = fastcgi.ServerConnection(), b""
while not protocol.closing:
    data = connection.recv(65536)
    received += data
    for event in protocol.receive_data(data):
        if isinstance(event, BodyEnded):
            print(*fastcgi.dissect(received), sep="\n")
            answer = protocol.send_head(event.stream_id, b"Content-Type: text/plain\r\n\r\n")
            answer += protocol.send_body(event.stream_id, b"Made by hand\n")
            connection.sendall(answer + protocol.end(event.stream_id))
connection.close()
