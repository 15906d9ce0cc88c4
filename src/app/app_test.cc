#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "app/args.h"
#include "app/end_guard.h"
#include "app/refused_flags.h"
#include "app/serve_flags.h"

namespace fathom::app {
namespace {

int run(std::vector<std::string> words, std::string* said) {
  std::vector<char*> argv;
  words.insert(words.begin(), "fathom");
  for (auto& word : words) argv.push_back(word.data());
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  const int code = run_command_line(static_cast<int>(argv.size()), argv.data());
  *said = testing::internal::GetCapturedStderr() + testing::internal::GetCapturedStdout();
  return code;
}

TEST(EndGuard, EndsWhatDoesNotEnd) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const EndGuard guard(std::chrono::milliseconds(20));
        std::this_thread::sleep_for(std::chrono::seconds(30));
        _exit(0);
      },
      testing::ExitedWithCode(1), "not ended within 0.0 s");
  EXPECT_EXIT(
      {
        { const EndGuard guard(std::chrono::seconds(30)); }
        std::fputs("ended", stderr);
        _exit(0);
      },
      testing::ExitedWithCode(0), "^ended$");
}

TEST(RefusedFlags, SayWhy) {
  EXPECT_NE(refusal_of("--enable-lora")->find("not supported"), std::string::npos);
  EXPECT_NE(refusal_of("--enable-deepep-moe")->find("--ep-size"), std::string::npos);
  EXPECT_EQ(refusal_of("--page-size"), std::nullopt);
}

// What recipes for the reference system and for others hold: a reason for each, and what to use instead.
TEST(RefusedFlags, RecipesOfOthersAreExplained) {
  for (const char* flag :
       {"--incremental-streaming-output", "--enable-flashinfer-allreduce-fusion",
        "--enable-flashinfer-cutlass-moe", "--weight-version", "--tokenizer-worker-num",
        "--expert-distribution-recorder-mode", "--pp-max-micro-batch-size", "--gpu-id-step",
        "--cpu-offload-gb", "--fp8-gemm-runner-backend", "--crash-dump-folder",
        "--bucket-time-to-first-token", "--priority-scheduling-preemption-threshold",
        "--disable-log-requests", "--enable-nan-detection", "--enable-memory-saver", "--enable-symm-mem",
        "--root-path", "--speculative-token-map"}) {
    EXPECT_TRUE(refusal_of(flag).has_value()) << flag;
  }
  const struct {
    const char* flag;
    const char* ours;
  } names[] = {{"--max-model-len", "--context-length"},
               {"--ctx-size", "--context-length"},
               {"--gpu-memory-utilization", "--mem-fraction-static"},
               {"--max-num-seqs", "--max-running-requests"},
               {"--max-num-batched-tokens", "--chunked-prefill-size"}};
  for (const auto& name : names) {
    std::string said;
    EXPECT_EQ(run({"serve", "--model-path", "x", name.flag, "8"}, &said), 2);
    EXPECT_NE(said.find(std::string(name.flag) + " is not available: use " + name.ours), std::string::npos)
        << said;
  }
}

TEST(CommandLine, TheDraftModelHasItsShortNames) {
  for (const char* flag :
       {"--speculative-draft", "--speculative-draft-model", "--speculative-draft-model-path"}) {
    std::string said;
    EXPECT_EQ(
        run({"serve", "--model-path", "/nowhere", "--speculative-algorithm", "EAGLE", flag, "x"}, &said), 1)
        << said;
    EXPECT_NE(said.find("no such folder"), std::string::npos) << said;
  }
}

TEST(RefusedFlags, NearestIsWhatWasMeant) {
  const std::vector<std::string> known = {"--host", "--port", "--page-size", "--model-path"};
  EXPECT_EQ(nearest_flag("--prot", known), "--port");
  EXPECT_EQ(nearest_flag("--page_size", known), "--page-size");
  EXPECT_EQ(nearest_flag("--something-else-entirely", known), std::nullopt);
}

TEST(CommandLine, AnUnknownFlagNamesTheNearest) {
  std::string said;
  EXPECT_EQ(run({"serve", "--model-path", "x", "--prot", "1"}, &said), 2);
  EXPECT_NE(said.find("unknown flag --prot; did you mean --port?"), std::string::npos) << said;
}

TEST(CommandLine, AFlagOfTheReferenceIsRefusedWithItsReason) {
  std::string said;
  EXPECT_EQ(run({"serve", "--model-path", "x", "--revision", "main"}, &said), 2);
  EXPECT_NE(said.find("--revision is not available: nothing is downloaded"), std::string::npos) << said;
  EXPECT_EQ(run({"serve", "--model-path=x", "--enable-lora=2"}, &said), 2);
  EXPECT_NE(said.find("--enable-lora is not available"), std::string::npos) << said;
}

// Whoever moves over learns of all flags that do not go with them at once.
TEST(CommandLine, EveryFlagOfTheReferenceThatFathomLacksHasAReason) {
  std::string said;
  EXPECT_EQ(run({"serve", "--model-path", "x", "--trust-remote-code", "--hicache-ratio", "2",
                 "--dsa-decode-backend", "fa3", "--disaggregation-mode", "prefill", "--stream-interval", "4",
                 "--quantization", "awq", "--prot", "1"},
                &said),
            2);
  for (const char* flag : {"--hicache-ratio", "--dsa-decode-backend", "--disaggregation-mode",
                           "--stream-interval", "--quantization"}) {
    EXPECT_NE(said.find(std::string(flag) + " is not available: "), std::string::npos) << flag << "\n"
                                                                                       << said;
  }
  EXPECT_NE(said.find("unknown flag --prot; did you mean --port?"), std::string::npos) << said;
  EXPECT_EQ(said.find("trust-remote-code"), std::string::npos) << said;
}

TEST(CommandLine, AFlagThatAsksForWhatIsSoAnywayIsTakenWithALine) {
  const std::vector<std::vector<std::string>> cases = {
      {"--trust-remote-code"},        {"--sampling-backend", "flashinfer"},
      {"--grammar-backend=xgrammar"}, {"--radix-eviction-policy", "lru"},
      {"--stream-interval", "1"},     {"--enable-torch-compile"},
      {"--torch-compile-max-bs", "8"}};
  std::vector<std::string> all = {"plan"};
  for (const auto& words : cases) all.insert(all.end(), words.begin(), words.end());
  all.insert(all.end(), {"--model-path", FATHOM_SOURCE_DIR "/models/demo"});
  std::string said;
  EXPECT_EQ(run(all, &said), 0) << said;
  for (const auto& words : cases) {
    const std::string flag = words.front().substr(0, words.front().find('='));
    EXPECT_NE(said.find(flag + " is not needed: "), std::string::npos) << flag << '\n' << said;
  }
  // What asks for something else is refused, and so is half of it.
  for (const auto& words : {std::vector<std::string>{"--grammar-backend", "none"},
                            {"--radix-eviction-policy=lfu"},
                            {"--stream-interval", "10"},
                            {"--trust-remote-code=false"},
                            {"--sampling-backend"}}) {
    std::vector<std::string> line = {"plan", "--model-path", FATHOM_SOURCE_DIR "/models/demo"};
    line.insert(line.end(), words.begin(), words.end());
    EXPECT_EQ(run(line, &said), 2) << words.front() << said;
  }
  EXPECT_NE(said.find("--sampling-backend: expected a value; it is not needed"), std::string::npos) << said;
}

TEST(CommandLine, ANumberOutOfRangeIsToldInWords) {
  std::string said;
  EXPECT_NE(run({"serve", "--model-path", "x", "--max-total-tokens", "0"}, &said), 0);
  EXPECT_NE(said.find("--max-total-tokens: got 0, expected a number above 0"), std::string::npos) << said;
}

TEST(CommandLine, AnUnknownParserIsRefusedWithTheNamesOfTheKnown) {
  std::string said;
  EXPECT_EQ(run({"serve", "--model-path", "x", "--reasoning-parser", "qwen3"}, &said), 2);
  EXPECT_NE(said.find("--reasoning-parser: got 'qwen3', expected one of auto, none, deepseek-r1"),
            std::string::npos)
      << said;
  EXPECT_EQ(run({"serve", "--model-path", "x", "--tool-call-parser", "hermes"}, &said), 2);
  EXPECT_NE(said.find("--tool-call-parser: got 'hermes', expected one of auto, none, deepseekv3"),
            std::string::npos)
      << said;
}

TEST(CommandLine, AKeyThatProtectsNothingIsRefused) {
  for (const std::string flag : {"--api-key", "--admin-api-key"}) {
    for (const std::string& key : {std::string(), std::string("a key"), std::string("key\n"),
                                   std::string("k\xc3\xa9y"), std::string(257, 'k')}) {
      std::string said;
      EXPECT_EQ(run({"serve", "--model-path", "x", flag, key}, &said), 2) << '"' << key << '"';
      EXPECT_NE(said.find(flag + ": "), std::string::npos) << said;
      EXPECT_TRUE(key.empty() || said.find(key) == std::string::npos) << said;
      EXPECT_EQ(run({"serve", "--model-path", "x", flag + "=" + key}, &said), 2) << '"' << key << '"';
    }
  }
}

TEST(CommandLine, OriginsAreToldApart) {
  ServeArgs args;
  CLI::App command;
  add_serve_flags(command, args);
  EXPECT_EQ(server_options(args).cors_origins, std::vector<std::string>{"*"});
  command.parse("--allowed-origins https://a.example,http://b.example:8080", false);
  EXPECT_EQ(server_options(args).cors_origins,
            (std::vector<std::string>{"https://a.example", "http://b.example:8080"}));
  command.parse(R"(--allowed-origins ["*"])", false);
  EXPECT_EQ(server_options(args).cors_origins, std::vector<std::string>{"*"});
  command.parse("--allowed-origins none", false);
  EXPECT_TRUE(server_options(args).cors_origins.empty());
  EXPECT_THROW(command.parse("--allowed-origins a.example", false), CLI::ValidationError);
  EXPECT_THROW(command.parse("--allowed-origins https://a.example/chat", false), CLI::ValidationError);
}

TEST(CommandLine, SizesOfGraphsMayHaveCommas) {
  for (const std::vector<std::string>& sizes :
       {std::vector<std::string>{"1,2,4"}, {"1", "2", "4"}, {"1,2", "4"}}) {
    std::vector<std::string> words = {"serve", "--model-path", "/nowhere", "--cuda-graph-bs"};
    words.insert(words.end(), sizes.begin(), sizes.end());
    std::string said;
    EXPECT_EQ(run(words, &said), 1) << "the flags are good: " << said;
    EXPECT_NE(said.find("no such folder"), std::string::npos) << said;
  }
  std::string said;
  EXPECT_EQ(run({"serve", "--model-path", "/nowhere", "--cuda-graph-bs", "1,0"}, &said), 2);
  EXPECT_NE(said.find("--cuda-graph-bs: "), std::string::npos) << said;
}

TEST(CommandLine, OffersAFlagOnlyWhereItIsObeyed) {
  const struct {
    const char* flag;
    std::vector<std::string> commands;
  } cases[] = {
      {"--dtype", {"serve", "chat", "generate", "verify", "plan", "bench"}},
      {"--dist-timeout", {"serve", "chat", "generate", "verify", "bench"}},
      {"--page-size", {"serve", "chat", "generate", "verify", "plan", "bench"}},
      {"--threads", {"serve", "chat", "generate", "verify", "bench"}},
      {"--load-format", {"serve", "chat", "generate", "verify", "bench"}},
      {"--max-total-tokens", {"serve", "chat", "generate", "plan", "bench"}},
      {"--chunked-prefill-size", {"serve", "chat", "generate", "plan", "bench"}},
      {"--disable-radix-cache", {"serve", "chat", "generate", "bench"}},
      {"--disable-overlap-schedule", {"serve", "chat", "generate", "bench"}},
      {"--schedule-policy", {"serve", "generate", "bench"}},
      {"--tokenizer-path", {"serve", "chat", "generate"}},
      {"--skip-tokenizer-init", {"serve", "generate"}},
      {"--max-queued-requests", {"serve"}},
      {"--enable-priority-scheduling", {"serve"}},
      {"--watchdog-timeout", {"serve"}},
      {"--sampling-defaults", {"serve"}},
      {"--disable-cuda-graph", {"serve", "chat", "generate", "bench"}},
      {"--log-level", {"serve"}},
  };
  for (const auto& item : cases) {
    for (const std::string command : {"serve", "chat", "generate", "verify", "plan", "bench"}) {
      std::string help;
      EXPECT_EQ(run({command, "--help"}, &help), 0);
      const bool wanted =
          std::find(item.commands.begin(), item.commands.end(), command) != item.commands.end();
      EXPECT_EQ(help.find(std::string("  ") + item.flag + " ") != std::string::npos ||
                    help.find(std::string("  ") + item.flag + "\n") != std::string::npos,
                wanted)
          << command << ' ' << item.flag << '\n'
          << help;
    }
  }
}

TEST(CommandLine, AFlagOfAnotherCommandIsRefusedWithItsNames) {
  std::string said;
  EXPECT_EQ(run({"plan", "--model-path", "x", "--schedule-policy", "lpm"}, &said), 2);
  EXPECT_NE(said.find("plan has no use for --schedule-policy; it is a flag of serve, generate and bench"),
            std::string::npos)
      << said;
}

TEST(CommandLine, FlagsThatNeedAnotherSaySo) {
  std::string said;
  EXPECT_EQ(run({"chat", "--url", "http://127.0.0.1:1", "--threads", "2"}, &said), 2);
  EXPECT_NE(said.find("--threads requires --model-path"), std::string::npos) << said;
  EXPECT_EQ(run({"chat", "--url", "http://127.0.0.1:1", "--model-path", "x"}, &said), 2);
  EXPECT_NE(said.find(" excludes "), std::string::npos) << said;
  EXPECT_EQ(run({"bench", "--model-path", "x", "--schedule-policy", "lpm"}, &said), 2);
  EXPECT_NE(said.find("--schedule-policy requires --num-prompts"), std::string::npos) << said;
}

TEST(CommandLine, WrongValuesAreNamed) {
  std::string said;
  EXPECT_EQ(run({"serve", "--model-path", "x", "--port", "70000"}, &said), 2);
  EXPECT_NE(said.find("--port"), std::string::npos) << said;
  EXPECT_EQ(run({"serve"}, &said), 2);
  EXPECT_NE(said.find("--model-path"), std::string::npos) << said;
  EXPECT_EQ(run({}, &said), 2);
}

TEST(CommandLine, AWrongCommandNamesTheRightOnes) {
  const struct {
    std::vector<std::string> words;
    const char* says;
  } cases[] = {
      {{}, "fathom: no command: expected serve, chat, generate, verify, plan or bench; see fathom --help\n"},
      {{"srve"}, "unknown command 'srve': expected serve, chat,"},
      {{"srve", "--model-path", "x"}, "did you mean fathom serve?"},
      {{"launch_server"}, "unknown command 'launch_server': expected serve, "},
      {{"models/demo"}, "did you mean fathom serve --model-path models/demo?"},
      {{"--model-path", "x"}, "--model-path before a command: expected serve, chat, "},
      {{"--model-path", "x"}, "did you mean fathom serve --model-path x?"},
      {{"serve", "models/demo"},
       "serve: got 'models/demo' without a flag; give the model's folder as "
       "--model-path models/demo\n"},
      {{"chat", "models/demo"}, "give the model's folder as --model-path models/demo"},
      {{"plan", "--model-path", "x", "y"}, "plan: got 'y' without a flag; give each value after its flag"},
      {{"bench", "opz"}, "bench: got 'opz' without a flag; did you mean ops?"},
  };
  for (const auto& item : cases) {
    std::string said;
    EXPECT_EQ(run(item.words, &said), 2);
    EXPECT_NE(said.find(item.says), std::string::npos) << item.says << '\n' << said;
  }
  std::string said;
  EXPECT_EQ(run({"--version"}, &said), 0);
  EXPECT_EQ(run({"--help"}, &said), 0);
}

TEST(CommandLine, ASeedIsANumberThatSomethingIsDrawnFrom) {
  const std::string demo = FATHOM_SOURCE_DIR "/models/demo";
  std::string said;
  EXPECT_EQ(run({"serve", "--model-path", demo, "--random-seed", "-1"}, &said), 2);
  EXPECT_NE(said.find("--random-seed: got -1, expected a whole number of 0 or more"), std::string::npos)
      << said;
  EXPECT_EQ(run({"bench", "--model-path", demo, "--random-seed", "7"}, &said), 1);
  EXPECT_NE(said.find("--random-seed 7: here it is of dummy weights alone"), std::string::npos) << said;
}

TEST(CommandLine, ATraceFileThatCannotBeWrittenIsRefusedAtTheStart) {
  const std::string demo = FATHOM_SOURCE_DIR "/models/demo";
  std::string said;
  for (const std::string path : {"/nowhere/trace.json", FATHOM_SOURCE_DIR "/models"}) {
    EXPECT_EQ(run({"serve", "--model-path", demo, "--trace-file", path}, &said), 1);
    EXPECT_NE(said.find("--trace-file " + path + ": "), std::string::npos) << said;
    EXPECT_NE(said.find("expected a file that can be written"), std::string::npos) << said;
  }
  // One that can be written stays as it is until there is a trace.
  const std::string path = testing::TempDir() + "fathom_trace.json";
  EXPECT_EQ(run({"serve", "--model-path", demo, "--trace-file", path, "--api-key-file", "/nowhere"}, &said),
            1);
  EXPECT_NE(said.find("--api-key-file"), std::string::npos) << said;
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
}

TEST(CommandLine, Float16IsRefusedByName) {
  for (const std::string name : {"float16", "half"}) {
    std::string said;
    EXPECT_EQ(run({"plan", "--model-path", "x", "--dtype", name}, &said), 2);
    EXPECT_NE(said.find("--dtype: got " + name + ", which nothing computes in: F16 weights become BF16"),
              std::string::npos)
        << said;
    EXPECT_NE(said.find("use auto or bfloat16"), std::string::npos) << said;
  }
  std::string said;
  EXPECT_EQ(run({"plan", "--model-path", "x", "--dtype", "int4"}, &said), 2);
  EXPECT_NE(said.find("--dtype: got int4, expected auto, bfloat16 or float32"), std::string::npos) << said;
}

TEST(CommandLine, VariablesOfTheReferenceAreNamedOnce) {
  const std::string demo = FATHOM_SOURCE_DIR "/models/demo";
  std::string said;
  EXPECT_EQ(run({"plan", "--model-path", demo}, &said), 0);
  EXPECT_EQ(said.find("SGLANG_"), std::string::npos) << said;
  ::setenv("SGLANG_ENABLE_SPEC_V2", "secret", 1);
  ::setenv("SGLANG_ENABLE_JIT_DEEPGEMM", "1", 1);
  EXPECT_EQ(run({"plan", "--model-path", demo}, &said), 0);
  ::unsetenv("SGLANG_ENABLE_SPEC_V2");
  ::unsetenv("SGLANG_ENABLE_JIT_DEEPGEMM");
  EXPECT_NE(said.find("SGLANG_ENABLE_JIT_DEEPGEMM, SGLANG_ENABLE_SPEC_V2: set, but not read"),
            std::string::npos)
      << said;
  EXPECT_EQ(said.find("secret"), std::string::npos) << said;
}

// The words of the help after a flag, up to the next one.
std::string help_on(const std::string& help, const std::string& flag) {
  size_t start = std::min(help.find("  " + flag + ' '), help.find("  " + flag + ','));
  if (start == std::string::npos) return "no help on " + flag;
  return help.substr(start, help.find("\n    --", start) - start);
}

TEST(CommandLine, HelpTellsTheDefaults) {
  std::string help;
  EXPECT_EQ(run({"serve", "--help"}, &help), 0);
  const struct {
    const char* flag;
    const char* says;
  } defaults[] = {{"--host", "default: 127.0.0.1"},
                  {"--port", "default: 30000"},
                  {"--max-running-requests", "default: 64 on the CPU, 256 on a GPU"},
                  {"--chunked-prefill-size", "default: 512 on the CPU, 4096 on a GPU"},
                  {"--page-size", "default: 16 on the CPU, 64 on a GPU"},
                  {"--mem-fraction-static", "default: 0.85"},
                  {"--schedule-policy", "default: fcfs"},
                  {"--max-queued-requests", "default: 4096"},
                  {"--drain-timeout", "default: 30"},
                  {"--max-connections", "default: 4096"},
                  {"--idle-timeout", "default: 75"},
                  {"--max-body-bytes", "default: 67108864"},
                  {"--log-level", "default: info"},
                  {"--max-messages", "default: 16384"},
                  {"--max-tools", "default: 128"},
                  {"--max-choices", "default: 128"},
                  {"--max-batch", "default: 4096"},
                  {"--max-stop-strings", "default: 16"},
                  {"--max-json-values", "default: 4000000"}};
  for (const auto& item : defaults) {
    EXPECT_NE(help_on(help, item.flag).find(item.says), std::string::npos) << help_on(help, item.flag);
  }
  EXPECT_EQ(run({"plan", "--help"}, &help), 0);
  EXPECT_NE(help_on(help, "--routing-bias").find("0.07 as dummy weights; default: 0"), std::string::npos)
      << help;
}

TEST(CommandLine, EveryFlagHasAWordOfHelp) {
  for (const std::string command : {"serve", "chat", "generate", "verify", "plan", "bench"}) {
    std::string help;
    EXPECT_EQ(run({command, "--help"}, &help), 0);
    // The text begins in one column, on the flag's line or the next one.
    constexpr size_t kText = 36;
    std::string flag;
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) {
      const bool begins = line.starts_with("    --");
      if (begins) {
        EXPECT_EQ(flag, "") << command << " has no help on it";
        flag = line;
        if (line.size() > kText && line[kText - 1] == ' ' && line[kText] != ' ') flag.clear();
      } else if (line.size() > kText && line.starts_with(std::string(kText, ' '))) {
        flag.clear();
      }
    }
    EXPECT_EQ(flag, "") << command;
  }
}

TEST(CommandLine, HelpIsGrouped) {
  std::string said;
  EXPECT_EQ(run({"serve", "--help"}, &said), 0);
  for (const char* group :
       {"Model", "Device", "Memory", "Scheduling", "Server", "--chunked-prefill-size", "--api-key"}) {
    EXPECT_NE(said.find(group), std::string::npos) << group << "\n" << said;
  }
}

TEST(CommandLine, AModelThatIsNoFolderIsToldFirst) {
  const std::string file = FATHOM_SOURCE_DIR "/models/demo/config.json";
  const std::vector<std::vector<std::string>> commands = {
      {"serve"},
      {"chat"},
      {"generate", "--input", file},
      {"verify", "--golden", FATHOM_SOURCE_DIR "/tests/golden/demo.safetensors"},
      {"plan"},
      {"bench"}};
  for (auto words : commands) {
    const std::string start = "fathom " + words.front() + ": --model-path ";
    words.insert(words.end(), {"--model-path", "deepseek-ai/DeepSeek-V3"});
    std::string said;
    EXPECT_EQ(run(words, &said), 1);
    EXPECT_EQ(said,
              start +
                  "deepseek-ai/DeepSeek-V3: no such folder; nothing is downloaded, give the folder of a "
                  "downloaded checkpoint\n");
    words.back() = file;
    EXPECT_EQ(run(words, &said), 1);
    EXPECT_EQ(said, start + file +
                        ": is a file; give the folder that it lies in, with config.json and *.safetensors\n");
  }
  std::string said;
  EXPECT_EQ(run({"plan", "--model-path", FATHOM_SOURCE_DIR "/models/demo"}, &said), 0);
  EXPECT_NE(said.find("routed experts"), std::string::npos) << said;
}

}  // namespace
}  // namespace fathom::app
