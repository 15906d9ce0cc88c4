#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "app/args.h"

namespace fathom::app {
namespace {

int plan(const std::string& flags, std::string* said) {
  std::vector<std::string> words{"fathom", "plan"};
  std::istringstream stream("--model-path " FATHOM_SOURCE_DIR "/models/configs/deepseek_v3 " + flags);
  for (std::string word; stream >> word;) words.push_back(word);
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  const int code = run_command_line(static_cast<int>(argv.size()), argv.data());
  *said = testing::internal::GetCapturedStderr() + testing::internal::GetCapturedStdout();
  return code;
}

constexpr char kFits[] = "fits: KV pool of ";
constexpr char kEstimate[] = "an estimate by bytes a parameter";
constexpr char kNoKernels[] = "this build has no kernels for it";
constexpr char kNoAmd[] = "no backend for AMD's GPUs";
constexpr char kNoAscend[] = "no backend for Ascend's processors";

// DeepSeek-V3 and R1 on the hardware that the reference system's documentation lists for them.
struct Row {
  const char* weights;
  const char* flags;
  const char* says;
};
constexpr Row kTable[] = {
    {"FP8, 8 x H200", "--gpu h200 --tp 8", kFits},
    {"FP8, 8 x B200", "--gpu b200 --tp 8", kNoKernels},
    {"FP8, 8 x MI300X", "--gpu mi300x --tp 8", kNoAmd},
    {"FP8, 2 x 8 x H100", "--gpu h100 --tp 16 --nnodes 2", kFits},
    {"the same with DP attention", "--gpu h100 --tp 16 --dp 2 --enable-dp-attention --nnodes 2", kFits},
    {"FP8, 2 x 8 x H800", "--gpu h800 --tp 16 --nnodes 2", kFits},
    {"FP8, 2 x 8 x H20", "--gpu h20 --tp 16 --nnodes 2", kFits},
    {"FP8, Xeon 6980P", "--node-memory 1536 --tp 2", kFits},
    {"BF16, 2 x 8 x H200", "--weight-format bf16 --gpu h200 --tp 16 --nnodes 2", kFits},
    {"BF16, 2 x 8 x MI300X", "--weight-format bf16 --gpu mi300x --tp 16 --nnodes 2", kNoAmd},
    {"BF16, 4 x 8 x H100", "--weight-format bf16 --gpu h100 --tp 32 --nnodes 4", kFits},
    {"BF16, 4 x 8 x H800", "--weight-format bf16 --gpu h800 --tp 32 --nnodes 4", kFits},
    {"BF16, 4 x 8 x H20", "--weight-format bf16 --gpu h20 --tp 32 --nnodes 4", kFits},
    {"BF16, 4 x 8 x A100", "--weight-format bf16 --gpu a100 --tp 32 --nnodes 4", kFits},
    {"BF16, 4 x 8 x A800", "--weight-format bf16 --gpu a800 --tp 32 --nnodes 4", kFits},
    {"INT8, 16 x A100", "--weight-format int8 --gpu a100 --tp 16 --nnodes 2", kEstimate},
    {"INT8, 16 x A800", "--weight-format int8 --gpu a800 --tp 16 --nnodes 2", kEstimate},
    {"INT8, 32 x L40S", "--weight-format int8 --gpu l40s --tp 32 --nnodes 4", kEstimate},
    {"INT8, 4 x Atlas 800I A3", "--weight-format int8 --gpu atlas800i-a3 --tp 32 --nnodes 4", kNoAscend},
    {"W4A8, 8 x H20", "--weight-format w4a8 --gpu h20 --tp 8", kEstimate},
    {"W4A8, 8 x H100", "--weight-format w4a8 --gpu h100 --tp 8", kEstimate},
    {"W4A8, 4 x H200", "--weight-format w4a8 --gpu h200 --tp 4", kEstimate},
    {"AWQ, 8 x H100", "--weight-format awq --gpu h100 --tp 8", kEstimate},
    {"AWQ, 8 x H800", "--weight-format awq --gpu h800 --tp 8", kEstimate},
    {"AWQ, 8 x H20", "--weight-format awq --gpu h20 --tp 8", kEstimate},
    {"AWQ, 8 x A100", "--weight-format awq --gpu a100 --tp 8", kEstimate},
    {"AWQ, 8 x A800", "--weight-format awq --gpu a800 --tp 8", kEstimate},
    {"MXFP4, 8 x MI355X", "--weight-format mxfp4 --gpu mi355x --tp 8", kNoAmd},
    {"MXFP4, 4 x MI350X", "--weight-format mxfp4 --gpu mi350x --tp 4", kNoAmd},
    {"NVFP4, 8 x B200", "--weight-format nvfp4 --gpu b200 --tp 8", kNoKernels},
    {"NVFP4, 4 x B200", "--weight-format nvfp4 --gpu b200 --tp 4", kNoKernels},
};

TEST(Plan, EveryRowOfTheHardwareTableFitsOrIsRefusedWithTheReason) {
  for (const auto& row : kTable) {
    std::string said;
    const int code = plan(row.flags, &said);
    const bool refused = row.says == kNoKernels || row.says == kNoAmd || row.says == kNoAscend;
    EXPECT_EQ(code, refused ? 1 : 0) << row.weights << '\n' << said;
    EXPECT_NE(said.find(row.says), std::string::npos) << row.weights << '\n' << said;
    if (refused) continue;
    EXPECT_NE(said.find(kFits), std::string::npos) << row.weights << '\n' << said;
    EXPECT_NE(said.find("all-reduce after attention"), std::string::npos) << row.weights << '\n' << said;
  }
}

TEST(Plan, RefusesWhatDoesNotFitAndSaysWhatWould) {
  const struct {
    const char* flags;
    std::vector<const char*> says;
  } rows[] = {
      {"--gpu h100 --tp 8", {"would fit: --tp 16 --nnodes 2", "would fit: as many NVIDIA H200"}},
      {"--gpu h200 --tp 8 --weight-format bf16", {"would fit: --tp 16 --nnodes 2", "would fit: fp8 weights"}},
      {"--gpu a100 --tp 16 --nnodes 2 --weight-format bf16", {"would fit: --tp 32 --nnodes 4"}},
      {"--gpu l40s --tp 8", {"would fit: --tp 32 --nnodes 4"}},
      {"--node-memory 512 --tp 2", {"would fit: --tp 4 --nnodes 2"}},
  };
  for (const auto& row : rows) {
    std::string said;
    EXPECT_EQ(plan(row.flags, &said), 1) << row.flags;
    EXPECT_NE(said.find("does not fit: "), std::string::npos) << said;
    for (const char* says : row.says)
      EXPECT_NE(said.find(says), std::string::npos) << row.flags << '\n' << said;
  }
}

TEST(Plan, PlansTheMachineHereAsBefore) {
  std::string said;
  plan("--device cpu --tp 4 --max-total-tokens 64", &said);
  EXPECT_NE(said.find("4 ranks (--tp 4), 4 a node"), std::string::npos) << said;
  EXPECT_NE(said.find("this machine"), std::string::npos) << said;
}

TEST(Plan, WrongFlagsAreNamed) {
  std::string said;
  EXPECT_EQ(plan("--gpu h300", &said), 1);
  EXPECT_NE(said.find("expected h200, h100"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h200 --weight-format int3", &said), 1);
  EXPECT_NE(said.find("expected fp8, bf16"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h200 --gpu-memory 40", &said), 2);
  EXPECT_EQ(plan("--gpu h200 --device cpu", &said), 2);
  EXPECT_EQ(plan("--gpu h200 --tp 8 --dp 3 --enable-dp-attention", &said), 1);
  EXPECT_NE(said.find("--dp"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h200 --tp 12", &said), 1);
  EXPECT_NE(said.find("use 8 or 16"), std::string::npos) << said;
}

TEST(Plan, StepTimesCompareTheLayoutsThatFit) {
  std::string said;
  EXPECT_EQ(plan("--gpu h200 --tp 8 --step-time", &said), 0) << said;
  for (const char* part : {"step, ms", "output tok/s in all", "output tok/s of a request", "TP 8, DP 8, EP 8",
                           "--tp 8 --dp 8 --enable-dp-attention --ep-size 8", "*"}) {
    EXPECT_NE(said.find(part), std::string::npos) << part << '\n' << said;
  }
  EXPECT_EQ(plan("--gpu a100 --tp 16 --nnodes 2 --step-time", &said), 1);
  EXPECT_NE(said.find("timed on h100 and h200"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu-memory 139 --tp 8 --step-time", &said), 1);
  EXPECT_NE(said.find("needs --gpu"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h200 --tp 8 --ep-size 8 --ep-num-redundant-experts 8 --step-time", &said), 1);
  EXPECT_NE(said.find("several places are not predicted"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h100 --tp 8 --step-time", &said), 1);
  EXPECT_NE(said.find("no layout"), std::string::npos) << said;
}

TEST(Plan, RanksSayHowManyGroupsAndSetsThereAre) {
  std::string said;
  EXPECT_EQ(plan("--gpu h200 --tp 8 --enable-dp-attention", &said), 0);
  EXPECT_NE(said.find("8 groups of requests, as many as --tp-size says"), std::string::npos) << said;
  EXPECT_NE(said.find("8 ranks (--tp 8 --dp 8 --enable-dp-attention)"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h200 --tp 8 --enable-dp-attention --dp 4", &said), 0);
  EXPECT_NE(said.find("8 ranks (--tp 8 --dp 4 --enable-dp-attention)"), std::string::npos) << said;
  EXPECT_EQ(said.find("as many as"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h200 --tp 8 --enable-ep-moe", &said), 0);
  EXPECT_NE(said.find("8 ranks (--tp 8 --ep-size 8)"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h200 --tp 8 --enable-ep-moe --ep-size 4", &said), 0);
  EXPECT_NE(said.find("8 ranks (--tp 8 --ep-size 4)"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h200 --tp 8 --enable-ep-moe --ep-size 3", &said), 1);
  EXPECT_NE(said.find("make --tp a multiple of --ep-size"), std::string::npos) << said;
}

TEST(Plan, OfAFlagThatIsGivenTwiceTheLastCounts) {
  std::string said;
  EXPECT_EQ(
      plan("--gpu h100 --tp 2 --gpu=h200 --tp-size 16 --tensor-parallel-size 8 --disable-mla --disable-mla",
           &said),
      0);
  EXPECT_NE(said.find("8 ranks (--tp 8)"), std::string::npos) << said;
  EXPECT_NE(said.find("H200"), std::string::npos) << said;
  EXPECT_EQ(plan("--gpu h200 --tp 2 --tp 0", &said), 2) << "each is checked";
}

}  // namespace
}  // namespace fathom::app
