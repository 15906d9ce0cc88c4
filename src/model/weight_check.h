// Holds a checkpoint to a config before anything is loaded. Both backends begin with it.
#pragma once

#include "base/result.h"
#include "model/model.h"
#include "weights/checkpoint.h"

namespace fathom::model {

// Bytes of the tensors that the model needs; one error names every tensor that is missing, unexpected or of
// the wrong shape or type. Fills report.skipped_tensors.
Result<int64_t> check_weights(const ModelConfig& config, const weights::Checkpoint& checkpoint,
                              LoadReport& report);

}  // namespace fathom::model
