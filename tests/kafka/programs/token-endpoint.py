"""A token endpoint over TLS, for the tests of secured connections: token-endpoint.py CERTIFICATE TOKEN PORT_FILE

Knows the client "shop" with the secret "s3cret"; writes the port that it was given to PORT_FILE.
"""

import base64
import http.server
import json
import ssl
import sys

certificate, token, port_file = sys.argv[1:]
CLIENT = "Basic " + base64.b64encode(b"shop:s3cret").decode()


class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        known = self.headers.get("authorization") == CLIENT and body == b"grant_type=client_credentials"
        response = {"access_token": token, "token_type": "Bearer", "expires_in": 3600} if known else {"error": "invalid_client"}
        response = json.dumps(response).encode()
        self.send_response(200 if known else 401)
        self.send_header("content-length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(port_file, "w") as file:
    print(server.server_port, file=file)
server.serve_forever()
