#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <memory>

#include "app/args.h"
#include "app/refused_flags.h"
#include "app/version.h"
#include "base/log.h"

namespace fathom::app {
namespace {

void add_model_flags(CLI::App& app, ModelArgs& args) {
  auto* model = app.add_option_group("Model");
  model
      ->add_option("--model-path,--model", args.model_path,
                   "Folder of the checkpoint (config.json, *.safetensors)")
      ->required()
      ->type_name("DIR");
  model->add_option("--tokenizer-path", args.tokenizer_path,
                    "Folder of tokenizer.json; default: the model's");
  model
      ->add_option("--load-format", args.load_format,
                   "auto, safetensors, or dummy (random weights from config.json)")
      ->check(CLI::IsMember({"auto", "safetensors", "dummy"}));
  model
      ->add_option("--dtype", args.dtype,
                   "auto (bfloat16), bfloat16 or float32: how activations enter the products")
      ->check(CLI::IsMember({"auto", "bfloat16", "float32"}));
  model->add_option("--kv-cache-dtype", args.kv_cache_dtype, "auto (the dtype), bfloat16 or float32")
      ->check(CLI::IsMember({"auto", "bfloat16", "float32"}));
  model
      ->add_option("--context-length", args.context_length,
                   "Longest prompt and output together; default: the model's")
      ->check(CLI::PositiveNumber);
  model->add_flag("--skip-tokenizer-init", args.skip_tokenizer_init,
                  "Serve token ids only (/generate with input_ids)");
  model
      ->add_option("--chat-template", args.chat_template,
                   "Jinja file to use instead of the checkpoint's template")
      ->check(CLI::ExistingFile);
  model->add_flag("--disable-mla", args.disable_mla, "Cache full keys and values instead of the latent");
  model->add_option("--random-seed", args.random_seed, "Seed of dummy weights");

  auto* device = app.add_option_group("Device");
  device->add_option("--device", args.device, "auto or cpu")->check(CLI::IsMember({"auto", "cpu"}));
  device->add_option("--threads", args.threads, "Compute threads; default: the CPUs this process may use")
      ->check(CLI::Range(1, 1024));
  device->add_option("--cpu-isa", args.cpu_isa, "auto, reference, avx2, avx512, avx512-bf16 or amx");

  auto* schedule = app.add_option_group("Memory and scheduling");
  schedule
      ->add_option("--mem-fraction-static", args.mem_fraction_static,
                   "Share of the free memory for weights and KV pages; default: all but a reserve")
      ->check(CLI::Range(0.01, 1.0));
  schedule
      ->add_option("--max-total-tokens", args.max_total_tokens,
                   "Token places in the KV pool; default: from memory")
      ->check(CLI::PositiveNumber);
  schedule->add_option("--page-size", args.page_size, "Tokens a KV page")->check(CLI::Range(1, 1024));
  schedule->add_option("--max-running-requests", args.max_running_requests, "Requests in a batch")
      ->check(CLI::Range(1, 4096));
  schedule->add_option("--max-queued-requests", args.max_queued_requests, "Waiting requests before 503")
      ->check(CLI::PositiveNumber);
  schedule
      ->add_option("--chunked-prefill-size", args.chunked_prefill_size,
                   "Prompt tokens a step; -1: no chunking")
      ->check(CLI::Range(-1, 1 << 20));
  schedule->add_option("--schedule-policy", args.schedule_policy, "fcfs or lpm (longest cached prefix first)")
      ->check(CLI::IsMember({"fcfs", "lpm"}));
  schedule
      ->add_option("--schedule-conservativeness", args.schedule_conservativeness,
                   "Above 1 admits fewer requests at once, below 1 more")
      ->check(CLI::Range(0.0, 100.0));
  schedule->add_flag("--disable-radix-cache", args.disable_radix_cache, "Do not reuse cached prefixes");
  schedule->add_flag("--disable-overlap-schedule", args.disable_overlap_schedule,
                     "Plan a step after the last ended");
  schedule->add_flag("--disable-mixed-chunk", args.disable_mixed_chunk,
                     "Keep prompt and output tokens in separate steps");
}

void add_sampling_flags(CLI::App& app, ChatArgs& args) {
  auto* chat = app.add_option_group("Chat");
  chat->add_option("--url", args.url,
                   "Base URL of a running server (http://127.0.0.1:30000) instead of a model");
  chat->add_option("--api-key", args.api_key, "Key of that server");
  chat->add_option("--system", args.system, "System message");
  chat->add_option("--temperature", args.temperature)->check(CLI::Range(0.0, 100.0));
  chat->add_option("--top-p", args.top_p)->check(CLI::Range(0.0, 1.0));
  chat->add_option("--max-tokens", args.max_tokens)->check(CLI::PositiveNumber);
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

// CLI11 says only that a flag is unknown: add why it is refused, or what was probably meant.
int explain_extras(const CLI::App& root, const CLI::ExtrasError& failure, int argc, char** argv) {
  const CLI::App* command = &root;
  for (const auto* sub : root.get_subcommands()) command = sub;
  const auto known = flags_of(*command);
  for (int i = 1; i < argc; ++i) {
    std::string flag = argv[i];
    flag = flag.substr(0, flag.find('='));
    if (flag.rfind("--", 0) != 0 || std::find(known.begin(), known.end(), flag) != known.end()) continue;
    if (auto reason = refusal_of(flag)) {
      std::fprintf(stderr, "fathom: %s is not available: %s\n", flag.c_str(), reason->c_str());
    } else if (auto near = nearest_flag(flag, known)) {
      std::fprintf(stderr, "fathom: unknown flag %s; did you mean %s?\n", flag.c_str(), near->c_str());
    } else {
      std::fprintf(stderr, "fathom: unknown flag %s; see fathom %s --help\n", flag.c_str(),
                   command->get_name().c_str());
    }
    return 2;
  }
  std::fprintf(stderr, "fathom: %s\n", failure.what());
  return 2;
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app{"Fathom serves DeepSeek models.", "fathom"};
  app.set_version_flag("--version", kVersion);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  app.get_formatter()->column_width(34);

  std::function<int()> command;
  auto add = [&](const char* name, const char* help) { return app.add_subcommand(name, help); };

  ServeArgs serve_args;
  auto* serve = add("serve", "Serve a model over HTTP (OpenAI-compatible)");
  add_model_flags(*serve, serve_args.model);
  auto* server = serve->add_option_group("Server");
  server->add_option("--host", serve_args.host, "Address to listen on");
  server->add_option("--port", serve_args.port, "Port; 0: any free one")->check(CLI::Range(0, 65535));
  server->add_option("--served-model-name", serve_args.served_model_name,
                     "Name in /v1/models; default: --model-path");
  server->add_option("--api-key", serve_args.api_key, "Key that clients must send as a bearer token");
  server->add_option("--max-connections", serve_args.max_connections)->check(CLI::Range(1, 1 << 20));
  server->add_option("--log-level", serve_args.model.log_level, "debug, info, warning, error or off");
  server->add_option("--drain-timeout", serve_args.drain_timeout, "Seconds to finish requests after SIGTERM")
      ->check(CLI::Range(0, 86400));
  serve->callback([&] { command = [&] { return run_serve(serve_args); }; });

  ChatArgs chat_args;
  auto* chat = add("chat", "Talk to a model in the terminal");
  add_model_flags(*chat, chat_args.model);
  chat->get_option("--model-path")->required(false);
  add_sampling_flags(*chat, chat_args);
  chat->callback([&] { command = [&] { return run_chat(chat_args); }; });

  GenerateArgs generate_args;
  auto* generate = add("generate", "Answer a file of requests (JSONL), offline");
  add_model_flags(*generate, generate_args.model);
  generate
      ->add_option("--input", generate_args.input,
                   "JSONL of {prompt | messages | input_ids, ...}; - is stdin")
      ->required();
  generate->add_option("--output", generate_args.output, "JSONL of answers; - is stdout");
  generate->callback([&] { command = [&] { return run_generate(generate_args); }; });

  VerifyArgs verify_args;
  auto* verify = add("verify", "Compare logits and greedy tokens with a golden file");
  add_model_flags(*verify, verify_args.model);
  verify->add_option("--golden", verify_args.golden, "safetensors with input_ids, logits and greedy")
      ->required()
      ->check(CLI::ExistingFile);
  verify->add_option("--tolerance", verify_args.tolerance,
                     "Largest absolute error of a logit (float32: 2e-3)");
  verify->add_option("--max-kl", verify_args.max_kl, "Largest median KL divergence (bfloat16: 5e-3)");
  verify->callback([&] { command = [&] { return run_verify(verify_args); }; });

  PlanArgs plan_args;
  auto* plan = add("plan", "Show the memory of a model by part, from its config alone");
  add_model_flags(*plan, plan_args.model);
  plan->callback([&] { command = [&] { return run_plan(plan_args); }; });

  BenchArgs bench_args;
  auto* bench = add("bench", "Measure prefill and decode beside the machine's bandwidth and peak");
  add_model_flags(*bench, bench_args.model);
  bench->add_option("--batch", bench_args.batch, "Sequences at once")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  bench->add_option("--input-len", bench_args.input_len, "Prompt tokens")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  bench->add_option("--output-len", bench_args.output_len, "Output tokens")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  bench->add_option("--repeat", bench_args.repeat, "Repetitions; medians are shown")
      ->check(CLI::Range(1, 1000));
  bench
      ->add_option("--num-prompts", bench_args.num_prompts,
                   "Also run so many requests of random lengths up to the above through the scheduler")
      ->check(CLI::Range(0, 1 << 20));
  bench->add_option("--result-file", bench_args.result_file, "Write the figures as JSON too");
  bench->callback([&] { command = [&] { return run_bench(bench_args); }; });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError& failure) {
    return explain_extras(app, failure, argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure) == 0 ? 0 : 2;
  }
  return command();
}

}  // namespace fathom::app
