#!/usr/bin/env node
// Starts the clayer of this platform's package, as if it had been started itself: with its
// arguments, terminal, signals and exit code.
'use strict';

const { spawn } = require('node:child_process');
const os = require('node:os');

const name = `@container-layer/${process.platform}-${process.arch}`;
let program;
try {
  program = require.resolve(`${name}/bin/clayer`);
} catch {
  console.error(`clayer: the npm package ${name} is not installed: there is none for this platform, or npm was told to omit optional dependencies`);
  console.error('hint: npm install --include=optional container-layer');
  process.exit(1);
}
const args = process.argv.slice(2);

// Newer versions of Node can become the program.
if (process.execve) {
  process.emitWarning = () => {}; // that it is experimental
  try {
    process.execve(program, [program, ...args], process.env);
  } catch {
    // not where worker threads or a sandbox forbid it
  }
}

// The terminal sends Ctrl-C to both. Passed on too, it would be a second one, which ends
// clayer at once.
const fromTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY ? ['SIGINT', 'SIGQUIT'] : [];
let child;
const passed = ['SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'];
for (const s of passed) {
  process.on(s, () => {
    if (!fromTerminal.includes(s)) child.kill(s);
  });
}
child = spawn(program, args, { stdio: 'inherit' }); // now that no signal ends Node alone
child.on('error', (err) => {
  console.error(`clayer: ${program}: ${err.message}`);
  process.exit(126);
});
child.on('exit', (code, signal) => {
  if (signal === null) process.exit(code);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal); // ends by the same signal, if that ends Node
  setTimeout(() => process.exit(128 + os.constants.signals[signal]), 100);
});
