// The action of action.yml: installs clayer, composes the layers, and hands their
// environment to later steps. It is JavaScript because GitHub gives the token of its cache
// to such actions, and not to the steps of a composite one. It needs no packages.
'use strict';

const { spawn, spawnSync } = require('node:child_process');
const { randomUUID } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const input = (name) => (process.env[`INPUT_${name.toUpperCase()}`] ?? '').trim();

// What the store gha: takes of the job.
const ofCache = ['ACTIONS_RESULTS_URL', 'ACTIONS_RUNTIME_TOKEN', 'ACTIONS_CACHE_MODE'];

// environment returns that of a program: neither the inputs nor, unless it is for a store,
// what the runner gives to actions.
function environment(more) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(INPUT|ACTIONS)_/.test(name));
  return { ...Object.fromEntries(kept), ...more };
}

// run runs a program until it ends, and returns what it prints if that is wanted. Signals
// are for the program: the runner sends them to this process alone.
function run(program, args, env, wantOutput, how = [program, args]) {
  return new Promise((resolve, reject) => {
    const child = spawn(...how, { env, stdio: ['ignore', wantOutput ? 'pipe' : 'inherit', 'inherit'] });
    const pass = (signal) => child.kill(signal);
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
    for (const s of signals) process.on(s, pass);
    let output = '';
    child.stdout?.setEncoding('utf8').on('data', (text) => { output += text; });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      for (const s of signals) process.off(s, pass);
      if (code === 0) return resolve(output.trim());
      const failed = new Error(`${path.basename(program)} ${args[0]}: ${signal ?? `exit code ${code}`}`);
      failed.code = code ?? 1;
      reject(failed);
    });
  });
}

// asRoot returns how a program is run that changes the root: by sudo, if this user may not, and
// sudo does not ask. The user of GitHub's runners is such a one.
function asRoot(program, args, env) {
  try {
    fs.accessSync(env.CLAYER_ROOT || '/', fs.constants.W_OK);
    return [program, args];
  } catch {
    if (env.CLAYER_DEST || spawnSync('sudo', ['-n', '-E', 'true']).status !== 0) return [program, args];
    return ['sudo', ['-n', '-E', 'env', `PATH=${env.PATH}`, `HOME=${env.HOME}`, program, ...args]];
  }
}

// setVariable has later steps see a variable.
function setVariable(name, value) {
  const end = `CLAYER_${randomUUID()}`;
  fs.appendFileSync(process.env.GITHUB_ENV, `${name}<<${end}\n${value}\n${end}\n`);
}

async function main() {
  const clayer = await run('sh', [path.join(__dirname, 'install.sh')], environment({
    CLAYER_VERSION: input('version'), CLAYER_PINS: input('pins'),
    CLAYER_INSTALL_DIR: path.join(process.env.RUNNER_TEMP, 'clayer'),
  }), true);
  fs.appendFileSync(process.env.GITHUB_PATH, `${path.dirname(clayer)}\n`);

  const settings = {};
  for (const [name, value] of [['GH_TOKEN', input('token')], ['CLAYER_REPO', input('repo')], ['CLAYER_STORE', input('store')]]) {
    if (value) settings[name] = value;
  }
  const job = {};
  for (const name of ofCache) {
    if (process.env[name]) job[name] = process.env[name];
  }
  const compose = ['compose', ...input('layers').split(/\s+/).filter(Boolean)];
  const env = environment({ ...settings, ...job });
  await run(clayer, compose, env, false, asRoot(clayer, compose, env));
  await run(clayer, ['env', '--github'], environment());

  if (input('expose') === 'true') {
    for (const [name, value] of Object.entries(job)) setVariable(name, value);
    if (settings.CLAYER_STORE) setVariable('CLAYER_STORE', settings.CLAYER_STORE);
  }
}

main().catch((err) => {
  console.log(`::error::${err.message}`);
  process.exitCode = Number.isInteger(err.code) ? err.code : 1; // of the program, or ENOENT
});
