"""Train a CaiT, evaluate it or predict with it.

    python CaiT/main_single_gpu.py -cfg=CaiT/configs/cait_xxs24_224.yaml -dataset=imagenet2012 \
        -data_path=dataset/LSVRC2012 -batch_size=256 -pretrained=CaiT/cait_xxs24_224     # train
    ... -eval     # accuracy on val_list.txt
    ... -pred     # classes of the images in test_list.txt
    ... -ngpus=2  # in two processes, on two GPUs or sharing the CPU

The same in processes that the launcher starts, on one machine or several (docs/distributed.md):

    python -m paddle.distributed.launch --gpus=0,1 CaiT/main_single_gpu.py -cfg=...

`-o KEY=VALUE` sets any other key of the config; docs/config.md lists them.
"""

import interruptible  # noqa: F401  # isort: skip

import sys

from cait.command.run import run_command


def main() -> None:
    from cait.config.flags import check_checkpoints, parse_command
    from cait.distributed.launch import must_start, share_cores, start

    config = parse_command(sys.argv[1:])
    check_checkpoints(config)
    if must_start(config.NGPUS):
        sys.exit(start(sys.argv, config.NGPUS))
    share_cores()
    from cait.train import jobs  # after the flags are checked: importing Paddle takes seconds

    jobs.run(config)


if __name__ == "__main__":
    run_command(main, has_log=True)
