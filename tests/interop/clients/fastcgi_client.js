// Requests through the package fastcgi-client.
//
// On stdin, as JSON:   {connect: {sockFile} or {host, port}, requests: [request, ...]}
//   request: {params: {NAME: value}, body: base64,
//             after: [number of another request, "output" or "end"]: not sent before that; absent: at once,
//             abort: true: given up at the first output}
// On stdout, as JSON:  {values: what FCGI_GET_VALUES brought, answers: [{stdout, stderr: base64, status or error}]}
'use strict';

const fastcgiClient = require('fastcgi-client');

const { connect, requests } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const answers = requests.map(() => null);
const client = fastcgiClient(connect); // asks FCGI_GET_VALUES on a connection of its own before it is ready

client.on('error', fail);
client.on('ready', () => {
  requests.forEach((request, number) => request.after || send(request, number));
});

function fail(error) {
  console.error(error);
  process.exit(1);
}

function reached(number, what) {
  requests.forEach((request, other) => {
    if (request.after && request.after[0] === number && request.after[1] === what) send(request, other);
  });
}

function send(request, number) {
  client.request(request.params, (error, exchange) => {
    if (error) {
      finish(number, { error: error.message });
      return;
    }
    const stdout = [];
    const stderr = [];
    let open = 2;
    const ended = () => {
      if (--open) return;
      const status = exchange.getExitStatus();
      const answer = { stdout: Buffer.concat(stdout).toString('base64'), stderr: Buffer.concat(stderr).toString('base64') };
      if (status instanceof Error) answer.error = status.message;
      else answer.status = status;
      finish(number, answer);
    };
    exchange.stdout.on('data', (data) => {
      stdout.push(data);
      if (stdout.length > 1) return;
      reached(number, 'output');
      if (request.abort) exchange.abort();
    });
    exchange.stderr.on('data', (data) => stderr.push(data));
    exchange.stdout.on('end', ended);
    exchange.stderr.on('end', ended);
    exchange.stdin.end(Buffer.from(request.body || '', 'base64'));
  });
}

function finish(number, answer) {
  answers[number] = answer;
  reached(number, 'end');
  if (answers.includes(null)) return;
  const values = { connections: client._maxConns, requests: client._maxReqs, multiplexing: client._mpxsConns };
  process.stdout.write(JSON.stringify({ values, answers }));
}
