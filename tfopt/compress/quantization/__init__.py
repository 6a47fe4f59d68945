"""tfopt.compress.quantization"""
