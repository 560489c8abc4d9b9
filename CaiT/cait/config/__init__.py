"""The config: every key with its default, its type and range, and what it does; YAML files and overrides.

Values are read in this order, and later ones win: the defaults below; on `-resume`, the config of the resumed run;
the YAML file with its `BASE` files, which beside `-resume` may add keys and change none; flags and `-o KEY=VALUE` in
the order of the command line. With `MODEL.PRETRAINED` set, a key that nobody set takes its fine-tuning default, where
it has one.

`python -m cait.config` lists the keys.
"""
