"""fathom chat: over a pipe and in a terminal, with the model in the process and with a server elsewhere."""
import re

from binary import DEMO
from runner import check, equal, test
from running_server import RunningServer
from scripted_server import ScriptedServer

GREEDY = ("--temperature", 0)


@test
def over_a_pipe_it_answers_each_line(binary):
    code, out, err = binary.run("chat", *DEMO, *GREEDY, input="What is 7 + 5?\n\nWhat is 2 + 9?\n/stats\n")
    equal(code, 0, err)
    answers = out.split("> ")
    check(answers[0].startswith("Type a message; /help"), out)
    equal(answers[1:4], ["7 + 5 = 12.\n", "", "2 + 9 = 11.\n"])
    stats = re.fullmatch(r"  (\d+) tokens in [\d.]+ s, first after \d+ ms, [\d.]+ tokens/s\n", answers[4])
    check(stats and 5 <= int(stats[1]) <= 20, answers[4])
    equal(answers[5:], ["\n"], "the end of the input ends the program")


@test
def commands_say_what_they_do(binary):
    code, out, err = binary.run("chat", *DEMO, *GREEDY, input="/stats\n/help\n/nonsense\n/thinking maybe\n/exit\nWhat?\n")
    equal(code, 0, err)
    _, stats, help_text, unknown, wrong, *rest = out.split("> ")
    equal(stats, "  no answer yet\n")
    for command in ("/help", "/reset", "/system TEXT", "/thinking on|off", "/stats", "/exit"):
        check(f"\n  {command} " in "\n" + help_text, f"{command} is not in {help_text!r}")
    for answer in (unknown, wrong):
        equal(answer, "  unknown command; the commands are\n" + help_text)
    equal(rest, ["\n"], "after /exit nothing is answered")


@test
def in_a_terminal_it_prompts_and_ends_with_control_d(binary):
    with binary.terminal("chat", *DEMO, *GREEDY) as terminal:
        terminal.wait_for("/help lists the commands.\n> ")
        terminal.type("What is 7 + 5?\n")
        equal(terminal.wait_for("\n> "), "What is 7 + 5?\n7 + 5 = 12.\n> ")  # the terminal's echo, the answer
        terminal.type("/help\n")
        check("/exit" in terminal.wait_for("\n> "))
        terminal.type("\x04")
        equal(terminal.exit_code(), 0)


@test
def pieces_appear_as_they_come(binary):
    with ScriptedServer() as server, binary.terminal("chat", "--url", server.url) as terminal:
        terminal.wait_for("> ")
        terminal.type("go\n")
        terminal.wait_for("go\n")
        for piece in ("One, ", "zwei, ", "三, ", "🦊"):
            server.say(piece)  # the next one is sent only when this one was seen
            equal(terminal.wait_for(piece, seconds=20), piece)
        server.end(tokens=4)
        terminal.wait_for("\n> ")
        terminal.type("/stats\n")
        check("  4 tokens in" in terminal.wait_for("\n> "))
        terminal.type("/exit\n")
        equal(terminal.exit_code(), 0)


@test
def what_is_sent_is_the_conversation(binary):
    with ScriptedServer() as server, binary.terminal(
            "chat", "--url", server.url + "/v1", "--api-key", "a key", "--system", "Be brief.", "--temperature", 0.5,
            "--top-p", 0.9, "--max-tokens", 7) as terminal:
        def ask(text, answer):
            server.say(answer)
            server.end()
            terminal.type(text + "\n")
            terminal.wait_for(answer)
            terminal.wait_for("\n> ")
            return server.asked.get(timeout=20)

        def turns(*pairs):
            return [{"role": role, "content": text} for role, text in pairs]

        terminal.wait_for("> ")
        path, headers, body = ask("one", "eins")
        equal(path, "/v1/chat/completions")
        equal(headers["Authorization"], "Bearer a key")
        equal(body["messages"], turns(("system", "Be brief."), ("user", "one")))
        equal({k: body[k] for k in ("stream", "temperature", "top_p", "max_tokens", "chat_template_kwargs")},
              {"stream": True, "temperature": 0.5, "top_p": 0.9, "max_tokens": 7,
               "chat_template_kwargs": {"thinking": False}})
        terminal.type("/thinking on\n")
        body = ask("two", "zwei")[2]
        equal(body["chat_template_kwargs"], {"thinking": True})
        equal(body["messages"], turns(("system", "Be brief."), ("user", "one"), ("assistant", "eins"), ("user", "two")))
        terminal.type("/reset\n")
        equal(ask("three", "drei")[2]["messages"], turns(("system", "Be brief."), ("user", "three")))
        terminal.type("/system Count.\n")
        equal(ask("four", "vier")[2]["messages"], turns(("system", "Count."), ("user", "four")))


@test
def a_refusal_is_shown_and_forgotten(binary):
    with ScriptedServer(status=401) as server:
        code, out, err = binary.run("chat", "--url", server.url, input="one\ntwo\n")
        equal(code, 0, err)
        equal(err.count("status 401: the test refuses"), 2, err)
        equal([len(server.asked.get(timeout=20)[2]["messages"]) for _ in range(2)], [1, 1])
        url = server.url
    code, out, err = binary.run("chat", "--url", url, input="one\n")
    equal(code, 0, err)
    check(url.removeprefix("http://") in err, f"{err!r} does not name the server that is gone")


@test
def a_server_answers_as_the_model_in_the_process(binary):
    with RunningServer(*DEMO, "--api-key", "k", binary=binary.path) as server:
        flags = ("chat", "--url", server.base, *GREEDY, "--api-key")
        code, out, err = binary.run(*flags, "k", input="What is 7 + 5?\n")
        equal((code, out.split("> ")[1]), (0, "7 + 5 = 12.\n"), err)
        code, out, err = binary.run(*flags, "wrong", input="What is 7 + 5?\n")
        check("status 401" in err and "12" not in out, (out, err))


@test
def without_a_model_or_a_server_it_says_what_to_give(binary):
    for flags, says in [((), "--url"), (("--url", "ftp://x"), "ftp://x"), (("--model-path", "/nowhere"), "/nowhere")]:
        code, _, err = binary.run("chat", *flags, input="Hello\n")
        equal(code, 1, err)
        check(says in err, err)
