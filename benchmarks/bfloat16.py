"""How far a clip's reward in a batch is from its reward alone, in float32 and in bfloat16, and what helps.

Each drawn clip is scored alone and among others of unlike lengths, by the bundled model. Differences of the reward are
taken between chains that are the same; a chain that is not is counted as forked. Ways:

    float32                 everything in float32
    bfloat16                the backbone in bfloat16; query and head in float32, as always
    float32 query step      the same, but the last step, with the query, in float32 on the cache of the bfloat16 chain
    one shape               bfloat16, each clip in a batch of its own size: alone = batch by construction
    batch invariant         bfloat16 with torch's batch-invariant kernels, where this torch has them for the device

    python -m benchmarks.bfloat16 [--repeats 3] [--clips 24]"""
