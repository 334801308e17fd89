"""False alarms asked for and seen: detectors of random halves of a set's good photos, tried on the other half.

  python3 benches/false_alarms.py FASTFLOW OUT SPLITS SET... [-- flags of train]

SET is a folder in MVTec AD's layout; its good photos for training and for testing are pooled where --pool is given,
else the training photos alone are divided. Needs nothing but the program. Prints one JSON line a set: for each rate asked
for the share of good photos above the threshold (mean over the splits, and the 95 % range of a binomial count with that
many photos), from the scores that the detectors record.
"""
import json, math, os, random, shutil, subprocess, sys


def photos(folder):
    return sorted(os.path.join(folder, name) for name in os.listdir(folder)
                  if name.lower().endswith((".png", ".jpg", ".jpeg", ".bmp")))


def conformal(scores, rate):
    rank = math.ceil((len(scores) + 1) * (1 - rate))
    return sorted(scores)[min(max(rank, 1), len(scores)) - 1]


def linked(paths, folder):
    os.makedirs(folder)
    for index, path in enumerate(paths):
        os.symlink(os.path.abspath(path), os.path.join(folder, f"{index:04}{os.path.splitext(path)[1]}"))


def main():
    args, flags = sys.argv[1:], []
    if "--" in args:
        args, flags = args[: args.index("--")], args[args.index("--") + 1:]
    pool = "--pool" in args
    program, out, splits, *sets = [a for a in args if a != "--pool"]
    for data in sets:
        good = photos(f"{data}/train/good") + (photos(f"{data}/test/good") if pool else [])
        rates, seen, tried, promised = (0.01, 0.02, 0.05, 0.1), {}, 0, {}
        for split in range(int(splits)):
            random.Random(split).shuffle(chosen := list(good))
            half = len(chosen) // 2
            work = os.path.join(out, "split")
            shutil.rmtree(work, ignore_errors=True)
            linked(chosen[:half], f"{work}/photos")
            linked(chosen[half:], f"{work}/others")
            quiet = dict(check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            subprocess.run([program, "train", "--data", f"{work}/photos", "--out", f"{work}/detector",
                            "--seed", str(split), "--no-eval", *flags], **quiet)
            weights = flags[flags.index("--backbone-weights"):][:2] if "--backbone-weights" in flags else []
            lines = subprocess.run([program, "infer", f"{work}/detector", f"{work}/others", "--json", *weights],
                                   check=True, capture_output=True, text=True).stdout.splitlines()
            scores = [json.loads(line)["score"] for line in lines]
            calibration = json.load(open(f"{work}/detector/config.json"))["calibration"]
            tried += len(scores)
            for rate in rates:
                threshold = conformal(calibration["normal_scores"], rate)
                seen[rate] = seen.get(rate, 0) + sum(score > threshold for score in scores)
                promised[rate] = max(rate, 1 / (len(calibration["normal_scores"]) + 1))
        row = {"set": os.path.basename(data.rstrip("/")), "photos": half, "splits": int(splits)}
        for rate in rates:
            spread = 1.96 * math.sqrt(promised[rate] * (1 - promised[rate]) / (len(good) - half))
            row[str(rate)] = {"promised": round(promised[rate], 4), "seen": round(seen[rate] / tried, 4),
                              "one_split": [round(max(0, promised[rate] - spread), 3), round(promised[rate] + spread, 3)]}
        print(json.dumps(row), flush=True)


main()
