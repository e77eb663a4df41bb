"""The schema of every Parquet table, in pipeline order.

An image is identified by ``(shard_id, sample_index)``: the position of its shard in the
dataset's list of shards and its position in that shard. Keys are for people; nothing joins on
them. Columns are non-null unless said. The row order is part of each format.

How a column is stored is chosen by measurement (benchmarks/README.md): ``delta`` for what ascends,
``dictionary`` for what repeats or has few values, ``split`` (byte streams) for float32. zstd, and
lz4 for what the merge of a billion images reads. A text to ``find_by`` has a Bloom filter, one or two
bytes a row (lookup.py).
"""

import pyarrow as pa


def _field(
    name: str,
    type: pa.DataType,
    doc: str,
    nullable: bool = False,
    encoding: str = "",
    compression: str = "zstd",
    find_by: bool = False,
) -> pa.Field:
    if not encoding and (pa.types.is_string(type) or pa.types.is_dictionary(type)):
        encoding = "dictionary"
    metadata = {"doc": doc, "encoding": encoding, "compression": compression}
    if find_by:
        metadata["find_by"] = "yes"
    return pa.field(name, type, nullable=nullable, metadata=metadata)


def _identity(encoding: str = "", compression: str = "zstd") -> list[pa.Field]:
    of_shard = "position of the shard in the dataset's list of shards, from 0"
    of_sample = "position of the sample in its shard, from 0"
    return [
        _field("shard_id", pa.int32(), of_shard, False, encoding, compression),
        _field("sample_index", pa.int32(), of_sample, False, encoding, compression),
    ]


IDENTITY = _identity()
ASCENDING_IDENTITY = _identity("delta")

STATUS = [
    _field("status", pa.dictionary(pa.int8(), pa.string()), "ok, or the kind of failure"),
    _field("reason", pa.string(), "the failure in words; empty when ok"),
]

# results/datasets/{dataset}/samples-{part}.parquet, and the same for packed selections.
# Order: identity.
SAMPLES = pa.schema(
    [
        *IDENTITY,
        _field(
            "key",
            pa.string(),
            "WebDataset key: the member's path up to the first dot",
            find_by=True,
        ),
        _field(
            "extension", pa.string(), "of the image member, lower case: jpg, png, ...; or empty"
        ),
        _field("offset", pa.int64(), "first byte of the image in its tar; -1 without an image"),
        _field("size_bytes", pa.int64(), "length of the image in bytes; 0 without an image"),
        _field("content_hash", pa.binary(16), "XXH3 of the image bytes, 128 bits"),
        _field("label", pa.int32(), "class id from .cls; null where not labelled", nullable=True),
        *STATUS,
    ]
)

# results/features/{descriptor}/{dataset}/part-{part}.parquet: the images that have a feature.
# Order: identity.
FEATURES = pa.schema(
    [
        *ASCENDING_IDENTITY,
        _field(
            "feature",
            pa.binary(),
            "L2-normalised descriptor, float16: np.frombuffer(feature, '<f2')",
            compression="none",
        ),
    ]
)

FINGERPRINTS = [
    _field("pixel_hash", pa.binary(16), "XXH3 of shape and decoded pixels; zeros if not decoded"),
    _field("perceptual_hash", pa.int64(), "64 bits of low frequencies; 0 if not decoded"),
]

# results/features/{descriptor}/{dataset}/images-{part}.parquet: one row per sample, failures
# included. Order: identity.
DESCRIBED = pa.schema([*ASCENDING_IDENTITY, *FINGERPRINTS, *STATUS])

# A shard that is described while its part is not yet: one row per sample of the shard, in order.
SHARD_FEATURES = pa.schema(
    [
        *FINGERPRINTS,
        _field("feature", pa.binary(), "L2-normalised descriptor, float16; empty if failed"),
    ]
)

MATCH = [
    _field("evaluation_dataset", pa.string(), "name of the evaluation dataset"),
    _field("evaluation_shard_id", pa.int32(), "identity of the evaluation image"),
    _field("evaluation_sample_index", pa.int32(), "identity of the evaluation image"),
]

DISTANCE = _field("distance", pa.float32(), "Euclidean, between L2-normalised features: 0 to 2")

# results/duplicates/{dataset}/nearest-{part}.parquet: the closest evaluation image of each image
# that has one within the recording distance. Order: identity.
NEAREST = pa.schema([*IDENTITY, *MATCH, DISTANCE])

# results/duplicates/{dataset}/part-{part}.parquet and pairs.parquet: the closest pairs, at most
# duplicates.max_pairs. Order: distance, identity, evaluation dataset, evaluation identity.
DUPLICATES = pa.schema(
    [
        *IDENTITY,
        _field("key", pa.string(), "key of the unlabelled image"),
        *MATCH,
        _field("evaluation_key", pa.string(), "key of the evaluation image"),
        DISTANCE,
    ]
)

# results/duplicates/{dataset}/copies.parquet: images with the bytes or the pixels of an evaluation
# image, or of an earlier image of the dataset: a row for each dataset that holds the same. Order:
# identity, evaluation dataset, the own dataset last.
COPIES = pa.schema(
    [
        *IDENTITY,
        _field("first_dataset", pa.string(), "the evaluation dataset, or the image's own dataset"),
        _field("first_shard_id", pa.int32(), "identity of the first image that is the same"),
        _field("first_sample_index", pa.int32(), "identity of the first image that is the same"),
        _field("same", pa.string(), "bytes, or only pixels"),
    ]
)

# results/duplicates/{dataset}/centroids.parquet: the cells in which U is compared with itself.
# Order: cell.
CENTROIDS = pa.schema([_field("feature", pa.binary(), "centroid, float16", compression="none")])

# results/duplicates/{dataset}/cells-{part}.parquet: the images of a part by cell; a row group for
# each group of cells. Order: group, cell, identity.
CELLS = pa.schema(
    [
        _field("cell", pa.int32(), "whose centroid is the closest"),
        *IDENTITY,
        *(field for field in FEATURES if field.name == "feature"),
    ]
)

# results/duplicates/{dataset}/near_copies.parquet: images close to an earlier image of their
# dataset that is kept. Order: identity.
NEAR_COPIES = pa.schema(
    [
        *IDENTITY,
        _field("first_shard_id", pa.int32(), "identity of the first such image"),
        _field("first_sample_index", pa.int32(), "identity of the first such image"),
        DISTANCE,
    ]
)

# results/duplicates/calibration.parquet: near-duplicates planted on purpose. Order: evaluation
# dataset, identity, kind.
CALIBRATION = pa.schema(
    [
        *MATCH,
        _field("kind", pa.string(), "what was done to the evaluation image"),
        DISTANCE,
        _field(
            "distance_to_others",
            pa.float32(),
            "to the closest other evaluation image; 2 where there is none",
        ),
        _field("bits", pa.int32(), "in which the perceptual hashes differ, of 64"),
    ]
)

# results/duplicates/leaks.parquet: evaluation images with a near-duplicate in what may be learned
# from. Order: as the step finds them, then evaluation dataset, identity.
LEAKS = pa.schema(
    [
        _field("source", pa.string(), "a dataset or a selection"),
        _field("by", pa.string(), "features or perceptual hash"),
        *MATCH,
        _field("distance", pa.float32(), "of the closest; between hashes: bits that differ"),
    ]
)

# A shard that is scored while its part is not yet: one row per sample of the shard, in order.
SHARD_SCORES = pa.schema(
    [
        _field("class_ids", pa.list_(pa.int16()), "the P best classes, best first; none if failed"),
        _field("log_odds", pa.list_(pa.float32()), "of these classes"),
        _field("logsumexp", pa.float32(), "of all logits, to 1/4096; 0 if failed"),
    ]
)

# results/scores/{teacher}/{unlabeled}/images-{part}.parquet: one row per sample, failures
# included. Order: identity.
IMAGES = pa.schema(
    [
        *ASCENDING_IDENTITY,
        _field(
            "logsumexp",
            pa.float32(),
            "of all logits, to 1/4096: logit = log softmax + logsumexp; 0 if failed",
            encoding="split",
        ),
        *STATUS,
    ]
)

# results/scores/{teacher}/{unlabeled}/failures.parquet: the samples that have no scores.
# Order: identity.
FAILURES = pa.schema(
    [
        *IDENTITY,
        _field("key", pa.string(), "key of the sample"),
        _field("shard", pa.string(), "path of the tar that holds it"),
        *STATUS,
    ]
)

# results/scores/{teacher}/{unlabeled}/part-{part}.parquet: P rows per scored image.
# Order: tier (a run of row groups; lengths in the footer) of the rank within the class in this
# part, class_id, log_odds descending, identity.
SCORES = pa.schema(
    [
        _field("class_id", pa.int16(), "predicted class", encoding="dictionary", compression="lz4"),
        _field(
            "log_odds",
            pa.float32(),
            "log(p / (1 - p)) of the softmax probability p",
            encoding="split",
            compression="lz4",
        ),
        *_identity("dictionary", "lz4"),
        _field(
            "prediction_rank",
            pa.int8(),
            "1 = the image's best class, up to P",
            encoding="dictionary",
        ),
    ]
)

# results/selections/{selection}/selection.parquet: D-hat. Order: class_id, class_rank.
SELECTION = pa.schema(
    [
        _field(
            "class_id", pa.int16(), "the class this image was selected for", encoding="dictionary"
        ),
        _field("class_name", pa.string(), "its name"),
        _field("class_rank", pa.int32(), "1 = the best image of the class", encoding="delta"),
        _field(
            "score",
            pa.float32(),
            "softmax probability of the class; with log_odds and prediction_rank null where an "
            "image chosen at random has the class not among its P best",
            nullable=True,
            encoding="split",
        ),
        _field("log_odds", pa.float32(), "log(p / (1 - p))", nullable=True, encoding="split"),
        _field(
            "prediction_rank",
            pa.int8(),
            "1 = the image's best class, up to P",
            nullable=True,
            encoding="dictionary",
        ),
        *IDENTITY,
        _field("key", pa.string(), "key of the image"),
        _field("shard", pa.string(), "path of the tar that holds it"),
        _field("extension", pa.string(), "of the image member: jpg, png, ..."),
        _field("offset", pa.int64(), "first byte of the image in its tar"),
        _field("size_bytes", pa.int64(), "length of the image in bytes"),
        _field("content_hash", pa.binary(16), "XXH3 of the image bytes, 128 bits"),
    ]
)

# results/selections/{selection}/changes.parquet: what entered and left since the selection was last
# made. Order: class_id, change, class_rank.
CHANGES = pa.schema(
    [
        _field("change", pa.string(), "entered or left"),
        *(
            SELECTION.field(name)
            for name in ("class_id", "class_name", "class_rank", "score", "key", "shard")
        ),
    ]
)

# results/selections/{selection}/removed.parquet: images that may not be selected, once each.
# Order: identity.
REMOVED = pa.schema(
    [
        *IDENTITY,
        _field(
            "reason", pa.string(), "copy_of_evaluation, duplicate_of_evaluation, copy or near_copy"
        ),
        _field(
            "distance",
            pa.float32(),
            "to the closest evaluation image, if recorded; null for copies",
            nullable=True,
        ),
    ]
)

# results/selections/{selection}/sizes.parquet: what `make plan` found.
SIZES = pa.schema(
    [
        _field("classes_per_image", pa.int32(), "P"),
        _field("fraction", pa.float64(), "share of U"),
        _field("images_per_class", pa.int32(), "K"),
        _field("num_rows", pa.int64(), "|D-hat|: rows of the selection"),
        _field("num_images", pa.int64(), "distinct images"),
        _field("fill", pa.float64(), "rows as a share of those wanted"),
        _field("shortest_class", pa.string(), "the class that lacks most images"),
        _field("num_shortest", pa.int64(), "images it has"),
        _field("overlap", pa.float64(), "share of the images that serve two classes or more"),
        _field("lowest_cut", pa.float64(), "lowest score of the last images", nullable=True),
        _field("median_cut", pa.float64(), "median score of the last images", nullable=True),
    ]
)

# results/models/{model}/{stage}/metrics.parquet. Order: images.
METRICS = pa.schema(
    [
        _field("step", pa.int64(), "optimiser steps so far"),
        _field("images", pa.int64(), "images processed so far"),
        _field("samples", pa.int64(), "images of a whole pass over the data"),
        _field("lr", pa.float64(), "learning rate in force"),
        _field("loss", pa.float64(), "mean training loss since the row before"),
        _field("top1", pa.float64(), "training accuracy since the row before, in [0, 1]"),
        _field("loaded", pa.int64(), "images the loader gave to the network, so far"),
        _field("failed", pa.int64(), "images that could not be decoded, so far"),
    ]
)

# results/models/{model}/finetune/sweep.parquet. Order: as configured.
SWEEP = pa.schema(
    [
        _field("base_lr", pa.float64(), "initial learning rate per 256 images"),
        _field("dataset", pa.string(), "the images that choose; no reported accuracy is of them"),
        _field("num_images", pa.int64(), "images evaluated"),
        _field("top1", pa.float64(), "accuracy in [0, 1]"),
        _field("top1_low", pa.float64(), "lower end of the 95 % Wilson interval"),
        _field("top1_high", pa.float64(), "upper end of the 95 % Wilson interval"),
        _field(
            "diverged",
            pa.bool_(),
            "its loss was no number any more; what was measured is its start",
        ),
        _field("chosen", pa.bool_(), "whether it became the student"),
    ]
)

# results/predictions/{model}/{stage}.parquet. Order: dataset, identity.
PREDICTIONS = pa.schema(
    [
        _field("dataset", pa.string(), "evaluation dataset"),
        *IDENTITY,
        _field("label", pa.int32(), "ground truth"),
        _field("class_id", pa.int32(), "predicted class"),
        _field("score", pa.float32(), "its softmax probability"),
        _field("label_rank", pa.int32(), "rank of the true class among the predictions, from 1"),
    ]
)

# results/evaluations/{model}/{stage}.parquet, and all together results/evaluations.parquet.
# Order: model, stage, dataset.
EVALUATIONS = pa.schema(
    [
        _field("model", pa.string(), "name in the configuration"),
        _field("stage", pa.string(), "imported, train, pretrain or finetune"),
        _field("dataset", pa.string(), "evaluation dataset"),
        _field("num_images", pa.int64(), "images evaluated"),
        _field("num_failed", pa.int64(), "samples that could not be read or decoded"),
        _field("top1", pa.float64(), "accuracy in [0, 1]"),
        _field("top1_low", pa.float64(), "lower end of the 95 % Wilson interval"),
        _field("top1_high", pa.float64(), "upper end of the 95 % Wilson interval"),
        _field("top5", pa.float64(), "accuracy in [0, 1]"),
        _field("top5_low", pa.float64(), "lower end of the 95 % Wilson interval"),
        _field("top5_high", pa.float64(), "upper end of the 95 % Wilson interval"),
    ]
)
