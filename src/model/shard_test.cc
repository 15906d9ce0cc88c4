#include "model/shard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "model/memory.h"
#include "model/weight_names.h"
#include "model/weights.h"
#include "weights/safetensors.h"
#include "weights/testing.h"
#include "weights/weight_reader.h"

namespace fathom::model {
namespace {

const std::string kRoot = FATHOM_SOURCE_DIR "/";
constexpr const char* kModels[] = {"tests/golden/v2_lite", "tests/golden/v2", "tests/golden/v3",
                                   "tests/golden/v3_fp8", "models/demo"};

// The released V3.
ModelConfig v3() {
  return parse_config(
             R"({"model_type": "deepseek_v3", "max_position_embeddings": 163840, "quantization_config":
    {"quant_method": "fp8", "weight_block_size": [128, 128]}})")
      .value();
}

TEST(SplitRange, GivesWholeUnitsOrEqualPartsOfThem) {
  EXPECT_EQ(split_range(768, 128, 0, 4), (Range{0, 256}));
  EXPECT_EQ(split_range(768, 128, 1, 4), (Range{256, 256}));
  EXPECT_EQ(split_range(768, 128, 3, 4), (Range{640, 128}));
  EXPECT_EQ(split_range(128, 128, 1, 4), (Range{32, 32}));
  EXPECT_EQ(split_range(256, 128, 5, 8), (Range{160, 32}));
  EXPECT_EQ(split_range(100, 16, 6, 7), (Range{96, 4}));  // what is left of the last unit
  EXPECT_EQ(split_range(128, 128, 0, 3).count, 0);
  EXPECT_EQ(split_range(256, 128, 0, 3).count, 0);
  EXPECT_EQ(split_range(5, 16, 0, 2).count, 0);
}

TEST(SplitRange, CoversAllOnce) {
  std::mt19937 random(1);
  int split = 0;
  for (int i = 0; i < 3000; ++i) {
    const int64_t total = 1 + random() % 3000;
    const int64_t unit = int64_t{1} << (random() % 8);
    const int size = static_cast<int>(1 + random() % 40);
    if (split_range(total, unit, 0, size).count == 0) continue;
    ++split;
    int64_t next = 0;
    int64_t most = split_range(total, unit, 0, size).count;
    for (int rank = 0; rank < size; ++rank) {
      const Range range = split_range(total, unit, rank, size);
      ASSERT_EQ(range.first, next) << total << " " << unit << " " << rank << "/" << size;
      ASSERT_GT(range.count, 0);
      ASSERT_LE(range.count, most) << "the larger ones first";
      if (size > 1 && range.count < unit) {
        ASSERT_TRUE(range.first / unit == (range.end() - 1) / unit) << "a cut unit is one unit";
      }
      most = range.count;
      next = range.end();
    }
    ASSERT_EQ(next, total);
  }
  EXPECT_GT(split, 1000);
}

TEST(MakeShard, SaysWhichCountsWork) {
  const auto message = [](const ModelConfig& config, int size) {
    const auto shard = make_shard(config, {.tp = size}, 0);
    return shard.ok() ? std::string("splits") : shard.error().message;
  };
  const ModelConfig demo = load_config(kRoot + "models/demo").value();
  EXPECT_EQ(message(demo, 4), "splits");
  EXPECT_EQ(message(demo, 3), "--tp 3: the model's 4 attention heads do not split in 3; use 2 or 4");
  EXPECT_EQ(message(demo, 8), "--tp 8: the model's 4 attention heads do not split in 8; use 4");
  for (const int size : {1, 2, 4, 8, 16, 32, 64, 128}) EXPECT_EQ(message(v3(), size), "splits");
  EXPECT_EQ(message(v3(), 24), "--tp 24: the model's 128 attention heads do not split in 24; use 16 or 32");
  ModelConfig odd = demo;
  odd.num_heads = 12;
  odd.num_shared_experts = 0;
  EXPECT_EQ(message(odd, 3), "--tp 3: the model's experts of 128 do not split in 3; use 2 or 4");
  EXPECT_EQ(message(odd, 2), "splits");  // nothing is shared, and each rank has none of it
}

// Of each stored tensor every element belongs to one rank, or all of it to every rank; and no shard of FP8
// lies across the edges of blocks where it would no longer be FP8.
TEST(SliceOf, CoversEveryTensor) {
  for (const char* model : kModels) {
    const ModelConfig config = load_config(kRoot + model).value();
    for (const int size : {2, 4, 8, 16}) {
      if (!make_shard(config, {.tp = size}, 0).ok()) continue;
      for (const auto& spec : weight_table(config)) {
        if (spec.shape.size() != 2) continue;
        const int64_t n = spec.shape[0];
        const int64_t k = spec.shape[1];
        std::vector<int> owners(static_cast<size_t>(n * k));
        bool whole = true;
        for (int rank = 0; rank < size; ++rank) {
          const auto shard = make_shard(config, {.tp = size}, rank).value();
          const weights::Slice slice = slice_of(config, shard, spec.name, n, k);
          whole = whole && slice.is_whole(n, k);
          for (int64_t i = slice.first_row; i < slice.first_row + slice.rows; ++i) {
            for (int64_t j = slice.first_col; j < slice.first_col + slice.cols; ++j)
              ++owners[static_cast<size_t>(i * k + j)];
          }
          if (stored_dtype(config, spec.name) == device::DType::kF8E4M3) {
            const int64_t into = slice.first_col % 128;
            EXPECT_TRUE(into == 0 || into + slice.cols <= 128) << spec.name << " " << rank << "/" << size;
          }
          const auto ranges = weights::byte_ranges(slice, k, device::DType::kBF16);
          EXPECT_EQ(ranges.total(), slice.rows * slice.cols * 2) << spec.name;
        }
        const int expected = whole ? size : 1;
        EXPECT_EQ(std::count(owners.begin(), owners.end(), expected), n * k)
            << model << " " << spec.name << " " << size;
      }
    }
  }
}

// Of every element of every tensor there are as many owners as there are ranks that need it.
TEST(HasPartOf, CoversEveryTensorHoweverTheModelIsSplit) {
  const ModelConfig config = [] {
    ModelConfig demo = load_config(kRoot + "models/demo").value();
    demo.draft_layers = 1;
    return demo;
  }();
  for (const Split split : {Split{.tp = 4, .ep = 2},
                            {.tp = 4, .dp = 2, .ep = 4},
                            {.tp = 2, .dp = 2, .pp = 3},
                            {.tp = 8, .dp = 4, .ep = 2, .pp = 2}}) {
    for (const auto& spec : weight_table(config)) {
      const int64_t n = spec.shape[0];
      const int64_t k = spec.shape.size() == 2 ? spec.shape[1] : 1;
      const auto has = [&](const char* word) { return spec.name.find(word) != spec.name.npos; };
      int64_t elements = 0;
      for (int rank = 0; rank < split.world(); ++rank) {
        const Shard shard = make_shard(config, split, rank).value();
        if (!has_part_of(config, shard, spec.name)) continue;
        if (spec.shape.size() == 1) {
          elements += n;
          continue;
        }
        const weights::Slice slice = slice_of(config, shard, spec.name, n, k);
        elements += slice.rows * slice.cols;
      }
      const bool by_heads = has("q_b_proj") || has("kv_b_proj") || has("o_proj") || has("q_proj");
      const bool by_columns = (has("mlp.") || has("shared_experts")) && !has(".gate.");
      int64_t copies = split.tp;
      if (has(".experts.") || has("shared_experts")) {
        copies = 1;
      } else if (by_heads || by_columns || has("embed_tokens") || has("lm_head")) {
        copies = split.dp;
      }
      if (has("embed_tokens") && split.pp > 1) copies *= 2;  // the draft layer's, on the last stage
      EXPECT_EQ(elements, copies * n * k) << spec.name << " tp " << split.tp << " dp " << split.dp;
    }
  }
}

TEST(Memory, OfARankIsItsShare) {
  MemoryOptions options;
  const MemoryPlan whole = plan_memory(v3(), options);
  options.shard = make_shard(v3(), {.tp = 8}, 0).value();
  const MemoryPlan rank = plan_memory(v3(), options);
  EXPECT_GT(rank.weight_bytes, whole.weight_bytes / 8);
  EXPECT_LT(rank.weight_bytes, whole.weight_bytes * 13 / 100);
  EXPECT_EQ(rank.kv_bytes_per_token, whole.kv_bytes_per_token) << "the latents are on every rank";
  options.shard = make_shard(v3(), {.tp = 8, .pp = 2}, 0).value();
  const MemoryPlan stage = plan_memory(v3(), options);
  EXPECT_LT(stage.weight_bytes, rank.weight_bytes * 52 / 100);
  EXPECT_EQ(stage.kv_bytes_per_token, whole.kv_bytes_per_token * 31 / 61);
  options.shard = make_shard(v3(), {.tp = 8}, 0).value();
  options.mla = false;
  EXPECT_EQ(plan_memory(v3(), options).kv_bytes_per_token, int64_t{61} * 16 * 320 * 2);
}

// All that a rank has packed, to be compared bit by bit.
void collect(const ops::PackedLinear& weight, std::string& bits) {
  bits.append(static_cast<const char*>(weight.data), static_cast<size_t>(weight.bytes()));
  if (weight.scales == nullptr) return;
  bits.append(reinterpret_cast<const char*>(weight.scales), static_cast<size_t>(weight.scale_bytes()));
}
std::string load_bits(const ModelConfig& config, const Shard& shard, const std::string& dir) {
  const auto checkpoint = weights::Checkpoint::open(dir).value();
  device::Arena arena;
  ThreadPool pool(2);
  const device::Target target;
  const auto supply = weights::make_checkpoint_supply(checkpoint, {target, &arena, &pool, nullptr, false});
  const auto loaded = load_weights(config, {target, ops::Compute::kF32, true, shard}, *supply);
  EXPECT_TRUE(loaded.ok()) << loaded.error().message;
  if (!loaded.ok()) return {};
  std::string bits(static_cast<const char*>(loaded->embedding.data),
                   static_cast<size_t>(loaded->embedding.numel() * device::size_of(loaded->embedding.dtype)));
  for (const LayerWeights& layer : loaded->layers) {
    for (const Linear* linear : {&layer.attention.qkv_a, &layer.attention.q_b, &layer.attention.kv_b,
                                 &layer.attention.out, &layer.dense.gate_up, &layer.dense.down,
                                 &layer.moe.gate, &layer.moe.shared.gate_up, &layer.moe.shared.down})
      collect(linear->weight, bits);
    for (const auto* group :
         {&layer.attention.absorb_key, &layer.attention.absorb_value, &layer.moe.gate_up, &layer.moe.down}) {
      for (const auto& weight : *group) collect(weight, bits);
    }
  }
  collect(loaded->head.weight, bits);
  return bits;
}

// The checkpoint with all bytes that are not the rank's set to 0xff: NaN in every type.
void write_poisoned(const ModelConfig& config, const Shard& shard, const std::string& dir,
                    const weights::testing::TempFolder& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (entry.path().extension() != ".safetensors" || entry.path().filename().string().starts_with("golden"))
      continue;
    const auto file = weights::SafetensorsFile::open(entry.path().string()).value();
    const auto bytes = file.bytes();
    std::vector<std::byte> image(bytes.begin(), bytes.end());
    for (const auto& tensor : file.tensors()) {
      if (tensor.shape.size() != 2) continue;
      std::string name = tensor.name;
      const int64_t n = tensor.shape[0];
      const int64_t k = tensor.shape[1];
      weights::Slice slice;
      if (name.ends_with("_scale_inv")) {
        name.resize(name.size() - std::strlen("_scale_inv"));
        const auto table = weight_table(config);
        const auto spec = std::find_if(table.begin(), table.end(),
                                       [&](const auto& candidate) { return candidate.name == name; });
        if (spec == table.end()) continue;
        slice = weights::scale_slice(slice_of(config, shard, name, spec->shape[0], spec->shape[1]));
      } else {
        slice = slice_of(config, shard, name, n, k);
      }
      const auto ranges = weights::byte_ranges(slice, k, *tensor.dtype);
      std::vector<std::byte> kept(tensor.bytes, std::byte{0xff});
      for (int64_t i = 0; i < ranges.count; ++i) {
        const int64_t at = ranges.first + i * ranges.step;
        std::memcpy(kept.data() + at, tensor.data + at, static_cast<size_t>(ranges.bytes));
      }
      std::memcpy(image.data() + (tensor.data - bytes.data()), kept.data(), kept.size());
    }
    folder.write(entry.path().filename().string(), image);
  }
  if (std::filesystem::exists(dir + "/model.safetensors.index.json"))
    std::filesystem::copy(dir + "/model.safetensors.index.json",
                          folder.path() + "/model.safetensors.index.json");
}

TEST(Shards, OfARankAreMadeOfItsOwnBytesAlone) {
  for (const char* model : kModels) {
    const std::string dir = kRoot + model;
    const ModelConfig config = load_config(dir).value();
    for (const int size : {2, 4}) {
      for (const int rank : {0, size - 1}) {
        const Shard shard = make_shard(config, {.tp = size}, rank).value();
        const weights::testing::TempFolder folder;
        write_poisoned(config, shard, dir, folder);
        const std::string bits = load_bits(config, shard, dir);
        EXPECT_TRUE(load_bits(config, shard, folder.path()) == bits) << model << " " << rank << "/" << size;
        // The poison works: another rank's bytes are gone.
        const Shard other = make_shard(config, {.tp = size}, size - 1 - rank).value();
        const auto checkpoint = weights::Checkpoint::open(folder.path()).value();
        device::Arena arena;
        ThreadPool pool(1);
        const auto supply = weights::make_checkpoint_supply(checkpoint, {{}, &arena, &pool, nullptr, false});
        const auto table = supply->table([&] {
          const auto slice =
              slice_of(config, other, "model.embed_tokens.weight", config.vocab_size, config.hidden_size);
          weights::Part part;
          part.name = "model.embed_tokens.weight";
          part.n = config.vocab_size;
          part.k = config.hidden_size;
          part.first_row = slice.first_row;
          part.rows = slice.rows;
          return part;
        }());
        ASSERT_TRUE(table.ok());
        EXPECT_TRUE(std::isnan(device::load_as_f32(table->data, table->dtype, 0)));
      }
    }
  }
}

}  // namespace
}  // namespace fathom::model
