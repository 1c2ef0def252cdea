'use strict';
// The sandbox's end of fd 3: frames in, frames out (version 1). It knows the shape of a frame and nothing of calls.

const { Socket } = require('net');

const KIND = Object.freeze({
  HELLO: 1, WELCOME: 2, INIT: 3, READY: 4, INIT_ERROR: 5, INVOKE: 6, DATA: 7, LOG: 8, RESULT: 9, ERROR: 10, CANCEL: 11,
  BYE: 12,
});
const HEADER = 16;
const MAX_FRAME = 1 << 20;
const END = 1;

class ProtocolError extends Error {}

function frame(kind, end, call, body) {
  const bytes = Buffer.allocUnsafe(HEADER + body.length);
  bytes.writeUInt32LE(body.length, 0);
  bytes[4] = kind;
  bytes[5] = end ? END : 0;
  bytes.writeUInt16LE(0, 6);
  bytes.writeBigUInt64LE(BigInt(call), 8);
  body.copy(bytes, HEADER);
  return bytes;
}

class Channel {
  // Calls `hear(kind, end, call, body)` for each frame and `gone(error)` when there will be none any more.
  constructor(fd, hear, gone) {
    this.chunks = [];
    this.length = 0;
    this.waiting = [];
    this.socket = new Socket({ fd, readable: true, writable: true });
    this.socket.on('data', (chunk) => {
      this.chunks.push(chunk);
      this.length += chunk.length;
      try {
        this.cut(hear);
      } catch (problem) {
        gone(problem);
      }
    });
    this.socket.on('end', () => gone(null));
    this.socket.on('error', () => gone(null));
    this.socket.on('drain', () => {
      for (const go of this.waiting.splice(0)) go();
    });
  }

  cut(hear) {
    while (this.length >= HEADER) {
      // Only the header is looked at until the whole frame is there.
      if (this.chunks[0].length < HEADER) this.chunks.unshift(this.take(HEADER)), (this.length += HEADER);
      const head = this.chunks[0];
      const length = head.readUInt32LE(0);
      const kind = head[4];
      if (length > MAX_FRAME || kind < KIND.HELLO || kind > KIND.BYE || head[5] & ~END || head.readUInt16LE(6)) {
        throw new ProtocolError(`kind ${kind}, ${length} bytes, flags ${head[5]}`);
      }
      if (this.length < HEADER + length) return;
      const end = head[5] === END;
      const call = Number(head.readBigUInt64LE(8));
      this.take(HEADER);
      hear(kind, end, call, this.take(length));
    }
  }

  // The next `count` bytes; there are that many.
  take(count) {
    this.length -= count;
    const first = this.chunks[0];
    if (count === 0) return Buffer.alloc(0);
    if (first.length === count) return this.chunks.shift();
    if (first.length > count) {
      this.chunks[0] = first.subarray(count);
      return first.subarray(0, count);
    }
    const whole = Buffer.allocUnsafe(count);
    let at = 0;
    while (at < count) {
      const piece = this.chunks[0];
      const part = Math.min(piece.length, count - at);
      piece.copy(whole, at, 0, part);
      at += part;
      if (part === piece.length) this.chunks.shift();
      else this.chunks[0] = piece.subarray(part);
    }
    return whole;
  }

  // One frame whose body is JSON.
  tell(kind, end, call, value, sent) {
    this.socket.write(frame(kind, end, call, Buffer.from(JSON.stringify(value))), sent);
  }

  // What a program has printed, as the output of a call.
  log(call, stream, bytes) {
    for (let at = 0; at < bytes.length; at += MAX_FRAME - 1) {
      const piece = bytes.subarray(at, at + MAX_FRAME - 1);
      this.socket.write(frame(KIND.LOG, false, call, Buffer.concat([Buffer.of(stream), piece])));
    }
  }

  // A result that is whole.
  result(call, contentType, body) {
    if (body.length === 0) {
      this.tell(KIND.RESULT, true, call, { content_type: contentType });
      return;
    }
    const head = frame(KIND.RESULT, false, call, Buffer.from(`{"content_type":"${contentType}"}`));
    if (body.length <= MAX_FRAME) {
      this.socket.write(Buffer.concat([head, frame(KIND.DATA, true, call, body)]));
      return;
    }
    this.socket.write(head);
    this.data(call, body, true);
  }

  // A piece of a body.
  data(call, body, end) {
    let at = 0;
    do {
      const piece = body.subarray(at, at + MAX_FRAME);
      at += MAX_FRAME;
      this.socket.write(frame(KIND.DATA, end && at >= body.length, call, piece));
    } while (at < body.length);
  }

  // Waits until the host has taken what was written, or nearly so: it reads no faster than whoever reads the result.
  taken() {
    if (!this.socket.writableNeedDrain) return undefined;
    return new Promise((go) => this.waiting.push(go));
  }
}

module.exports = { Channel, KIND, ProtocolError };
