#include "model/weight_check.h"

#include "model/weight_names.h"
#include "weights/weight_reader.h"

namespace fathom::model {

Result<int64_t> check_weights(const ModelConfig& config, const weights::Checkpoint& checkpoint,
                              LoadReport& report) {
  weights::WeightReader reader(checkpoint);
  for (const auto& spec : weight_table(config)) reader.require(spec);
  reader.skip([&](std::string_view name) { return is_known_extra(config, name); });
  FATHOM_TRY(reader.finish());
  report.skipped_tensors = reader.skipped();
  return reader.required_bytes();
}

}  // namespace fathom::model
