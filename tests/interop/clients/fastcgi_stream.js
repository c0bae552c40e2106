// Records through the package fastcgi-stream, one connection.
//
// On stdin, as JSON:   {connect: what net.connect takes, phases: [phase, ...]}
//   phase: {send: [[type, request id, argument, ...], ...], until: [type, request id] or "close"}
//   Types are named as in the package. The argument of streams is base64. A number as type is a record of that type.
// On stdout, as JSON:  [[type, request id, what it says, ...], ...]: all records that came, streams in base64
'use strict';

const net = require('net');
const { FastCGIStream, records } = require('fastcgi-stream');

const { connect, phases } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const socket = net.connect(connect);
const stream = new FastCGIStream(socket);
const names = Object.fromEntries(Object.entries(records).map(([name, record]) => [record.TYPE, name]));
const STREAMS = ['StdIn', 'StdOut', 'StdErr', 'Data'];
const came = [];

function record(type, args) {
  if (typeof type === 'number') return { TYPE: type, getSize: () => 8, write: (buffer) => buffer.fill(0xaa) };
  return new records[type](...(STREAMS.includes(type) ? [Buffer.from(args[0] || '', 'base64')] : args));
}

function said(name, record) {
  if (STREAMS.includes(name)) return [Buffer.from(record.data).toString('base64')];
  if (name === 'EndRequest') return [record.appStatus, record.protocolStatus];
  if (name === 'GetValuesResult') return [record.values];
  if (name === 'UnknownType') return [record.type];
  return [];
}

function next() {
  if (!phases.length) {
    socket.end();
    return;
  }
  for (const [type, id, ...args] of phases[0].send) stream.writeRecord(id, record(type, args));
}

socket.on('connect', next);
stream.on('record', (id, record) => {
  const name = names[record.TYPE];
  came.push([name, id, ...said(name, record)]);
  const until = phases.length ? phases[0].until : null;
  if (Array.isArray(until) && until[0] === name && until[1] === id) {
    phases.shift();
    next();
  }
});
socket.on('close', () => {
  if (phases.length && phases[0].until !== 'close') {
    console.error('closed too early');
    process.exit(1);
  }
  process.stdout.write(JSON.stringify(came));
});
