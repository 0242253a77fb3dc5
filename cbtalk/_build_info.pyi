compiler: str
flags: str
levels: str
switches: str
processor_level: str
