"""Score one part of U and describe its images, reading and decoding each once."""

from pathlib import Path

from semisup import memory, passes, settings
from semisup.steps import extract_features, run, score_shards


def main(
    settings: settings.ScoreAndDescribe,
    manifest: Path,
    weights: Path,
    descriptor: Path,
    scores: Path,
    images: Path,
    features: Path,
    described: Path,
    workers: int,
) -> None:
    """Write what score_shards and extract_features would, byte for byte.

    Where teacher and descriptor are the same network in the same precision, it looks once.
    """
    memory.keep_freed()
    score, describe = settings.score, settings.describe
    makers: list[passes.Maker] = [
        score_shards.ScoreMaker(passes.open_eye(weights, score.precision), score.classes_per_image),
        extract_features.FeatureMaker(passes.open_eye(descriptor, describe.precision)),
    ]
    work = scores.parent / "work-described" / scores.stem
    shards = passes.open_shards(manifest, work, makers, settings.canonical())
    passes.commit_shards(shards, score.batch_size, workers)
    score_shards.write_part(score, shards, scores, images)
    extract_features.write_part(shards, features, described)
    shards.discard()


if __name__ == "__main__":
    run(main)
