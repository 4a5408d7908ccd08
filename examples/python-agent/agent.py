"""A small agent: a model writes a line, OpenAI shortens it by plain httpx, Stripe and Telegram are asked by requests.

    python agent.py            one round, then it waits until it is stopped
    python agent.py --once     one round, then the end
"""

import json
import os
import signal
import sys

import httpx
import requests
from anthropic import Anthropic
from dotenv import load_dotenv

load_dotenv(".env")
failed = 0


def step(name, work):
    """Runs one part; what came back goes to a log file, as agents tend to do."""
    global failed
    try:
        says, answer = work()
    except Exception as error:  # an agent that goes on whatever happens
        failed += 1
        says, answer = f"failed: {str(error).splitlines()[0][:160] if str(error) else type(error).__name__}", repr(error)
    with open("received.log", "a", encoding="utf-8") as log:
        log.write(f"{name} {json.dumps(answer, default=str)}\n")
    print(f"  {name:<10} {says}", flush=True)


def anthropic():
    client = Anthropic(max_retries=1)
    answer = client.messages.create(
        model="claude-sonnet-5-5", max_tokens=100, messages=[{"role": "user", "content": "One line, please."}]
    )
    return f'wrote "{answer.content[0].text[:40]}"', answer.model_dump()


def openai():
    answer = httpx.post(
        "https://api.openai.com/v1/chat/completions",
        headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
        json={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say it shorter."}]},
    ).raise_for_status()
    return f'wrote "{answer.json()["choices"][0]["message"]["content"][:40]}"', {"headers": dict(answer.headers), "body": answer.json()}


def stripe():
    answer = requests.get("https://api.stripe.com/v1/balance", auth=(os.environ["STRIPE_SECRET_KEY"], ""), timeout=20)
    answer.raise_for_status()
    first = answer.json()["available"][0]
    return f"balance {first['amount'] / 100} {first['currency']}", {"headers": dict(answer.headers), "body": answer.json()}


def telegram():
    base = f"https://api.telegram.org/bot{os.environ['TELEGRAM_BOT_TOKEN']}"
    answer = requests.post(base + "/sendMessage", json={"chat_id": os.environ["REPORT_CHAT"], "text": "The report is ready."}, timeout=20)
    answer.raise_for_status()
    return f"sent message {answer.json()['result']['message_id']}", answer.json()


step("Anthropic", anthropic)
step("OpenAI", openai)
step("Stripe", stripe)
step("Telegram", telegram)
if "--once" not in sys.argv:
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    print("  waiting for the next report, Ctrl-C ends", flush=True)
    signal.pause()
sys.exit(1 if failed else 0)
