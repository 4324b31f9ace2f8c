"""The parquet files of the pipeline: samples as converters write them, RL and chat rows as verl reads them."""
