// Written by postern setup. Starts the programs of ORIGINAL without their keys:
//   pm2 start postern.config.cjs
// postern undo removes this file; the other one is as it was.
'use strict'
const path = require('node:path')
const fs = require('node:fs')

const agent = AGENT
const original = require(ORIGINAL)
const apps = Array.isArray(original) ? original : original.apps || [original]

// What pm2 would start for an ending when no interpreter is named.
const interpreters = { '.js': 'node', '.cjs': 'node', '.mjs': 'node', '.py': 'python3', '.sh': 'bash', '.rb': 'ruby', '.php': 'php', '.pl': 'perl', '.ts': 'bun', '.tsx': 'bun' }

function list (args) {
  if (Array.isArray(args)) return args.map(String)
  return (String(args || '').match(/'[^']*'|"[^"]*"|\S+/g) || []).map(a => a.replace(/^(['"])(.*)\1$/, '$2'))
}

function command (app, script, dir) {
  if (script.includes(' ')) return ['bash', '-c', script]
  const file = fs.existsSync(path.resolve(dir, script))
  let interpreter = app.interpreter || app.exec_interpreter
  if (!interpreter && file) interpreter = interpreters[path.extname(script)]
  const program = file && !interpreter ? [path.resolve(dir, script)] : [script]
  if (interpreter && interpreter !== 'none') {
    if (interpreter.startsWith('node@')) interpreter = 'node'
    program.unshift(interpreter, ...list(app.interpreter_args || app.node_args))
  } else if (interpreter === 'none' && file) {
    program[0] = path.resolve(dir, script)
  }
  return [...program, ...list(app.args)]
}

module.exports = {
  ...(Array.isArray(original) || !original.apps ? {} : original),
  apps: apps.map(app => {
    const script = app.script || app.cmd || app.command
    const dir = path.resolve(__dirname, app.cwd || '.')
    const { cmd, command: _, interpreter, exec_interpreter, interpreter_args, node_args, instances, exec_mode, wait_ready, ...rest } = app
    return {
      ...rest,
      name: app.name || path.basename(script, path.extname(script)),
      cwd: dir,
      script: 'postern',
      args: ['run', '--agent', agent, '--', ...command(app, script, dir)],
      interpreter: 'none',
      exec_mode: 'fork',
      ...(typeof instances === 'number' && instances > 1 && exec_mode === 'fork' ? { instances } : {})
    }
  })
}
