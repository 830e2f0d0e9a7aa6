# The page with feallm-mini on a CPU:
#   docker build -t feallm . && docker run --rm -p 7860:7860 feallm
FROM python:3.12-slim
RUN useradd --create-home feallm
WORKDIR /home/feallm/app
COPY requirements.txt .
# the CPU's wheels of torch are a tenth of the size of CUDA's
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt
COPY app.py ./
COPY feallm feallm
COPY page page
COPY assets assets
USER feallm
ENV FEALLM_HOST=0.0.0.0
EXPOSE 7860
CMD ["python", "app.py"]
