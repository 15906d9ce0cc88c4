// Which stored tensors make up each weight of a layer, fused as the layers want them and cut as the rank's
// shard says, and how large random ones are. What both backends load from.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"
#include "model/shard.h"
#include "weights/weight_supply.h"

namespace fathom::model {

class WeightParts {
 public:
  using Part = weights::Part;

  explicit WeightParts(const ModelConfig& config) : WeightParts(config, whole_model(config)) {}
  WeightParts(const ModelConfig& config, Shard shard);

  Part embedding() const;
  Part head() const;
  // Of an MTP layer: [H, 2 H]. `prefix` ends in the layer's number and a dot.
  Part merge(const std::string& prefix) const;
  // `prefix` ends in "self_attn."
  std::vector<Part> qkv_a(const std::string& prefix) const;  // what is projected from the layer's input
  Part q_b(const std::string& prefix) const;
  Part kv_b(const std::string& prefix) const;
  // Rows of kv_b of head `head` of the whole model: Dn of keys, transposed; then Dv of values.
  Part absorb_key(const std::string& prefix, int64_t head) const;
  Part absorb_value(const std::string& prefix, int64_t head) const;
  Part out(const std::string& prefix) const;
  // `prefix` ends in "mlp." or "shared_experts."
  std::vector<Part> gate_up(const std::string& prefix, int64_t inner) const;
  Part down(const std::string& prefix, int64_t inner) const;
  // `prefix` ends in "mlp."
  Part gate(const std::string& prefix) const;
  std::vector<Part> expert_gate_up(const std::string& prefix, int64_t expert) const;
  Part expert_down(const std::string& prefix, int64_t expert) const;

 private:
  float expert_gain() const;
  Part make(std::string name, int64_t n, int64_t k, float gain) const;

  const ModelConfig& c_;
  Shard shard_;
  float residual_ = 1.0F;
};

}  // namespace fathom::model
