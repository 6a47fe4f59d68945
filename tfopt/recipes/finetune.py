"""placeholder while the parts are written."""

FinetuneConfig = FinetuneResult = finetune = None
