#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>

#include "app/args.h"
#include "app/model_flags.h"
#include "app/plan_flags.h"
#include "app/refused_flags.h"
#include "app/serve_flags.h"
#include "app/settle_flags.h"
#include "app/unneeded_flags.h"
#include "app/version.h"

namespace fathom::app {
namespace {

void add_chat_flags(CLI::App& app, ChatArgs& args) {
  add_model_flags(
      app,
      {.weights = true, .text = true, .pool = true, .scheduler = true, .speculation = true, .ranks = true},
      args.model);
  auto* chat = app.add_option_group("Chat");
  auto* url = chat->add_option("--url", args.url,
                               "Base URL of a running server (http://127.0.0.1:30000) instead of a model");
  auto* model_path = app.get_option("--model-path")->required(false);
  for (const char* group : {kModelGroup, kDeviceGroup, kMemoryGroup, kSchedulingGroup, kSpeculationGroup}) {
    group_needs(app, group, model_path);
  }
  url->excludes(model_path);
  chat->add_option("--api-key", args.api_key, "Key of that server")->needs(url);
  chat->add_option("--system", args.system, "System message");
  chat->add_option("--temperature", args.temperature,
                   "Above 1 draws less likely tokens; default: the model's")
      ->check(CLI::Range(0.0, 100.0));
  chat->add_option("--top-p", args.top_p,
                   "Draw among the likeliest tokens of this share; default: the model's")
      ->check(CLI::Range(0.0, 1.0));
  chat->add_option("--max-tokens", args.max_tokens, "Of an answer; default: until the context is full")
      ->check(above_zero());
  chat->add_flag("--thinking", args.thinking, "Let the model think first");
}

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  for (const auto* group : app.get_subcommands([](const CLI::App* sub) { return sub->get_name().empty(); })) {
    const auto inner = flags_of(*group);
    names.insert(names.end(), inner.begin(), inner.end());
  }
  return names;
}

// Of a flag with one value that is given twice the last one counts, as in the reference system; lists go on.
void take_last(CLI::App& app) {
  for (auto* option : app.get_options()) {
    if (option->get_expected_max() == 1) option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  for (auto* inner : app.get_subcommands({})) take_last(*inner);
}

// "serve and chat": the commands that have the flag, or "".
std::string commands_with(const CLI::App& root, const std::string& flag) {
  std::vector<std::string> names;
  for (const auto* command : root.get_subcommands([](const CLI::App*) { return true; })) {
    const auto flags = flags_of(*command);
    if (std::find(flags.begin(), flags.end(), flag) != flags.end()) names.push_back(command->get_name());
  }
  if (names.size() < 2) return names.empty() ? "" : names.front();
  return fmt::format("{} and {}", fmt::join(names.begin(), names.end() - 1, ", "), names.back());
}

std::vector<std::string> names_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* command :
       app.get_subcommands([](const CLI::App* sub) { return !sub->get_name().empty(); }))
    names.push_back(command->get_name());
  return names;
}

// Where a value stands without its flag: says so, and that the model's folder has one.
bool explain_bare_word(const CLI::App& command) {
  const auto left = command.remaining(true);
  if (left.empty() || left.front().starts_with('-')) return false;
  const std::string& word = left.front();
  const auto near = nearest_flag(word, names_of(command));
  const std::string instead = near ? "did you mean " + *near + "?"
                              : command.count("--model-path") == 0
                                  ? "give the model's folder as --model-path " + word
                                  : "give each value after its flag";
  std::fprintf(stderr, "fathom: %s: got '%s' without a flag; %s\n", command.get_name().c_str(), word.c_str(),
               instead.c_str());
  return true;
}

// CLI11 says only that a flag is unknown: add why it is refused, or what was probably meant.
int explain_extras(const CLI::App& root, const CLI::ExtrasError& failure,
                   const std::vector<std::string>& words) {
  const CLI::App* command = &root;
  for (const auto* sub : root.get_subcommands()) command = sub;
  const auto known = flags_of(*command);
  bool explained = false;
  for (const auto& word : words) {
    const std::string flag = word.substr(0, word.find('='));
    if (flag.rfind("--", 0) != 0 || std::find(known.begin(), known.end(), flag) != known.end()) continue;
    explained = true;
    if (auto reason = refusal_of(flag)) {
      std::fprintf(stderr, "fathom: %s is not available: %s\n", flag.c_str(), reason->c_str());
    } else if (auto form = form_of_unneeded_flag(flag)) {
      std::fprintf(stderr, "fathom: %s: expected %s; it is not needed, leave it out\n", flag.c_str(),
                   form->c_str());
    } else if (const auto others = commands_with(root, flag); !others.empty()) {
      std::fprintf(stderr, "fathom: %s has no use for %s; it is a flag of %s\n", command->get_name().c_str(),
                   flag.c_str(), others.c_str());
    } else if (auto near = nearest_flag(flag, known)) {
      std::fprintf(stderr, "fathom: unknown flag %s; did you mean %s?\n", flag.c_str(), near->c_str());
    } else {
      std::fprintf(stderr, "fathom: unknown flag %s; see fathom %s --help\n", flag.c_str(),
                   command->get_name().c_str());
    }
  }
  if (explained || explain_bare_word(*command)) return 2;
  std::fprintf(stderr, "fathom: %s\n", failure.what());
  return 2;
}

// Whether the words begin with a command; says what to give instead if not.
bool begins_with_command(const CLI::App& root, const std::vector<std::string>& words) {
  const auto names = names_of(root);
  const std::string first = words.empty() ? "" : words.front();
  if (std::find(names.begin(), names.end(), first) != names.end()) return true;
  if (first == "--help" || first == "-h" || first == "--version") return true;
  std::string got = fmt::format("unknown command '{}'", first);
  std::string instead = "see fathom --help";
  if (words.empty()) {
    got = "no command";
  } else if (first.starts_with('-')) {
    got = fmt::format("{} before a command", first);
    instead = fmt::format("did you mean fathom serve {}?", fmt::join(words, " "));
  } else if (const auto near = nearest_flag(first, names)) {
    instead = fmt::format("did you mean fathom {}?", *near);
  } else if (first.find('/') != std::string::npos) {
    instead = fmt::format("did you mean fathom serve --model-path {}?", first);
  }
  std::fprintf(stderr, "fathom: %s: expected %s; %s\n", got.c_str(),
               fmt::format("{} or {}", fmt::join(names.begin(), names.end() - 1, ", "), names.back()).c_str(),
               instead.c_str());
  return false;
}

// Runs the command that `command` is, once its model's flags are settled. `notes`: for the log.
template <class Args>
int run_settled(const CLI::App& command, const std::vector<std::string>& notes, Args& args,
                int (*run)(const Args&)) {
  if (const auto settled = settle_flags(command, notes, args.model); !settled.ok()) {
    std::fprintf(stderr, "fathom %s: %s\n", command.get_name().c_str(), settled.error().message.c_str());
    return 1;
  }
  return run(args);
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app{"Fathom serves DeepSeek models.", "fathom"};
  app.set_version_flag("--version", kVersion);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  app.get_formatter()->column_width(34);

  std::function<int()> command;
  std::vector<std::string> words(argv + 1, argv + argc);
  std::vector<std::string> notes;
  auto add = [&](const char* name, const char* help) { return app.add_subcommand(name, help); };

  ServeArgs serve_args;
  auto* serve = add("serve", "Serve a model over HTTP (OpenAI-compatible)");
  add_model_flags(*serve,
                  {.weights = true,
                   .text = true,
                   .ids_only = true,
                   .answers = true,
                   .pool = true,
                   .scheduler = true,
                   .batches = true,
                   .queue = true,
                   .speculation = true,
                   .ranks = true,
                   .nodes = true,
                   .groups = true},
                  serve_args.model);
  add_serve_flags(*serve, serve_args);
  serve->callback([&] { command = [&] { return run_settled(*serve, notes, serve_args, run_serve); }; });

  ChatArgs chat_args;
  auto* chat = add("chat", "Talk to a model in the terminal");
  add_chat_flags(*chat, chat_args);
  chat->callback([&] { command = [&] { return run_settled(*chat, notes, chat_args, run_chat); }; });

  GenerateArgs generate_args;
  auto* generate = add("generate", "Answer a file of requests (JSONL), offline");
  add_model_flags(*generate,
                  {.weights = true,
                   .text = true,
                   .ids_only = true,
                   .answers = true,
                   .pool = true,
                   .scheduler = true,
                   .batches = true,
                   .speculation = true,
                   .ranks = true,
                   .groups = true},
                  generate_args.model);
  generate
      ->add_option("--input", generate_args.input,
                   "JSONL of {prompt | messages | input_ids, ...}; - is stdin")
      ->required();
  generate->add_option("--output", generate_args.output, "JSONL of answers; - is stdout");
  generate->callback(
      [&] { command = [&] { return run_settled(*generate, notes, generate_args, run_generate); }; });

  VerifyArgs verify_args;
  auto* verify = add("verify", "Compare logits and greedy tokens with a golden file");
  add_model_flags(*verify, {.weights = true, .ranks = true}, verify_args.model);
  verify->add_option("--golden", verify_args.golden, "safetensors with input_ids, logits and greedy")
      ->required()
      ->check(CLI::ExistingFile);
  verify->add_option("--tolerance", verify_args.tolerance,
                     "Largest absolute error of a logit (float32: 2e-3)");
  verify->add_option("--max-kl", verify_args.max_kl, "Largest median KL divergence (bfloat16: 5e-3)");
  verify->callback([&] { command = [&] { return run_settled(*verify, notes, verify_args, run_verify); }; });

  PlanArgs plan_args;
  auto* plan = add("plan", "Show what a model takes of each rank's memory and links, from its config alone");
  add_model_flags(*plan, {.pool = true, .speculation = true, .ranks = true, .groups = true}, plan_args.model);
  add_plan_flags(*plan, plan_args);
  plan->callback([&] { command = [&] { return run_settled(*plan, notes, plan_args, run_plan); }; });

  BenchArgs bench_args;
  auto* bench = add("bench", "Measure prefill and decode beside the machine's bandwidth and peak");
  add_model_flags(*bench,
                  {.weights = true,
                   .pool = true,
                   .scheduler = true,
                   .batches = true,
                   .speculation = true,
                   .ranks = true,
                   .groups = true},
                  bench_args.model);
  bench->add_option("--batch", bench_args.batch, "Sequences at once")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  bench->add_option("--input-len", bench_args.input_len, "Prompt tokens")
      ->delimiter(',')
      ->check(above_zero());
  bench->add_option("--output-len", bench_args.output_len, "Output tokens")
      ->delimiter(',')
      ->check(above_zero());
  bench->add_option("--repeat", bench_args.repeat, "Repetitions; medians are shown")
      ->check(CLI::Range(1, 1000));
  auto* num_prompts =
      bench
          ->add_option("--num-prompts", bench_args.num_prompts,
                       "Also run so many requests of random lengths up to the above through the scheduler")
          ->check(CLI::Range(0, 1 << 20));
  group_needs(*bench, kSchedulingGroup, num_prompts);
  auto* algorithm = bench->get_option("--speculative-algorithm");
  bench
      ->add_option(
          "--simulate-acceptance", bench_args.simulate_acceptance,
          "Guesses hold with this probability, whatever the model chooses, as if its draft layer had "
          "been trained")
      ->check(CLI::Range(0.0, 1.0))
      ->needs(algorithm);
  bench
      ->add_flag("--compare-speculation", bench_args.compare_speculation,
                 "Measure all of it without guesses first, and show both rates beside each other")
      ->needs(algorithm);
  bench->add_option("--result-file", bench_args.result_file, "Write the figures as JSON too");
  auto* ledger = bench->add_flag("--step-ledger", bench_args.step_ledger,
                                 "Also time every op of one decode and one prefill step (GPU)");
  bench->add_option("--ledger-trace", bench_args.ledger_trace, "Write those steps as a Chrome trace")
      ->needs(ledger);
  auto* bench_model = bench->get_option("--model-path")->required(false);
  auto* ops = bench->add_subcommand("ops", "Time single ops of the GPU beside public kernels (no model)");
  bench->callback([&, ops, bench_model] {
    if (!ops->parsed() && bench_model->empty()) throw CLI::RequiredError("--model-path");
    command = [&, ops] {
      if (ops->parsed()) log_notes(notes);
      return ops->parsed() ? run_bench_ops() : run_settled(*bench, notes, bench_args, run_bench);
    };
  });

  take_last(app);
  if (!begins_with_command(app, words)) return 2;
  for (const auto* chosen : app.get_subcommands({})) {
    if (chosen->get_name() == words.front()) notes = take_unneeded_flags(words, flags_of(*chosen));
  }
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them from the back
  } catch (const CLI::ExtrasError& failure) {
    return explain_extras(app, failure, words);
  } catch (const CLI::RequiredError& failure) {
    for (const auto* chosen : app.get_subcommands()) {
      if (explain_bare_word(*chosen)) return 2;
    }
    app.exit(failure);
    return 2;
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure) == 0 ? 0 : 2;
  }
  return command();
}

}  // namespace fathom::app
