// A small agent: it looks at its accounts, lets two models write a line about
// them, tells a Telegram chat, and is there on Discord.
//
//   node bot.js            one round, then it stays on Discord until it is stopped
//   node bot.js --once     one round, then the end
import 'dotenv/config';
import { appendFileSync } from 'node:fs';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import Stripe from 'stripe';
import { Bot } from 'grammy';
import { Client, Events, GatewayIntentBits } from 'discord.js';

const once = process.argv.includes('--once');
const env = process.env;
let failed = 0;

// step runs one part of the round. What came back goes to a log file, as agents
// tend to do with whatever they receive.
async function step(name, work) {
  try {
    const { says, answer } = await work();
    appendFileSync('received.log', `${name} ${JSON.stringify(answer)}\n`);
    console.log(`  ${name.padEnd(10)} ${says}`);
  } catch (error) {
    failed++;
    appendFileSync('received.log', `${name} ${error?.stack ?? error}\n`);
    console.log(`  ${name.padEnd(10)} failed: ${String(error?.message ?? error).split('\n')[0].slice(0, 160)}`);
  }
}

const anthropic = new Anthropic({ maxRetries: 1 });
await step('Anthropic', async () => {
  const stream = anthropic.messages.stream({
    model: 'claude-sonnet-5-5', max_tokens: 100,
    messages: [{ role: 'user', content: 'One line for the morning report, please.' }],
  });
  const text = await stream.finalText();
  return { says: `wrote "${text.slice(0, 40)}"`, answer: await stream.finalMessage() };
});

const openai = new OpenAI({ maxRetries: 1 });
await step('OpenAI', async () => {
  const answer = await openai.chat.completions.create({
    model: 'gpt-4o-mini', messages: [{ role: 'user', content: 'Say it shorter.' }],
  });
  return { says: `wrote "${answer.choices[0].message.content.slice(0, 40)}"`, answer };
});

const stripe = new Stripe(env.STRIPE_SECRET_KEY, { maxNetworkRetries: 0 });
await step('Stripe', async () => {
  const answer = await stripe.balance.retrieve();
  return { says: `balance ${answer.available[0].amount / 100} ${answer.available[0].currency}`, answer };
});

const telegram = new Bot(env.TELEGRAM_BOT_TOKEN);
await step('Telegram', async () => {
  const me = await telegram.api.getMe();
  const answer = await telegram.api.sendMessage(env.REPORT_CHAT, 'The report is ready.');
  return { says: `@${me.username} sent message ${answer.message_id}`, answer };
});

const discord = new Client({ intents: [GatewayIntentBits.Guilds] });
await step('Discord', async () => {
  const ready = new Promise((resolve, reject) => {
    discord.once(Events.ClientReady, resolve);
    discord.once(Events.Error, reject);
    setTimeout(() => reject(new Error('no READY within 20 s')), 20_000).unref();
  });
  await discord.login(env.DISCORD_TOKEN);
  const client = await ready;
  return { says: `logged in as ${client.user.tag}`, answer: { user: client.user.toJSON() } };
});

if (!once) {
  console.log('  staying on Discord, Ctrl-C ends');
  const awake = setInterval(() => {}, 60_000);
  await new Promise((stopped) => ['SIGINT', 'SIGTERM'].forEach((signal) => process.once(signal, stopped)));
  clearInterval(awake);
}
await discord.destroy();
process.exit(failed ? 1 : 0);
